/* GCC's unwinder (libgcc_eh.a), as Debian builds it, asks glibc's _dl_find_object for the program's .eh_frame_hdr. musl
   has no such function; this one searches the program headers. `cargo xtask dist` links it where rustup's own unwinder
   for musl is not installed. */
#define _GNU_SOURCE
#include <elf.h>
#include <link.h>
#include <pthread.h>
#include <stddef.h>

/* The unwinder refers to these weakly, and calls all of them if one is linked. */
__attribute__((used)) static void *const called[] = {
    pthread_once, pthread_getspecific, pthread_key_create, pthread_mutex_lock, pthread_mutex_unlock, pthread_setspecific,
};

/* glibc's struct dl_find_object of 64-bit machines (dlfcn.h). */
struct found {
    unsigned long long flags;
    void *start, *end;
    struct link_map *map;
    void *eh_frame;
    unsigned long long reserved[7];
};

struct search {
    ElfW(Addr) at;
    struct found *found;
};

static int visit(struct dl_phdr_info *object, size_t size, void *data) {
    struct search *search = data;
    const ElfW(Phdr) *text = NULL, *frames = NULL;
    (void)size;
    for (size_t i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        ElfW(Addr) start = object->dlpi_addr + part->p_vaddr;
        if (part->p_type == PT_LOAD && search->at - start < part->p_memsz) text = part;
        if (part->p_type == PT_GNU_EH_FRAME) frames = part;
    }
    if (!text || !frames) return 0;
    *search->found = (struct found){
        .start = (void *)(object->dlpi_addr + text->p_vaddr),
        .end = (void *)(object->dlpi_addr + text->p_vaddr + text->p_memsz),
        .eh_frame = (void *)(object->dlpi_addr + frames->p_vaddr),
    };
    return 1;
}

int _dl_find_object(void *address, struct found *found) {
    struct search search = {(ElfW(Addr))address, found};
    return dl_iterate_phdr(visit, &search) == 1 ? 0 : -1;
}
