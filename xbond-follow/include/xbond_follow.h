/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Follows the active slave of a bond of xbond from a program that has sockets of its own on the slaves: AF_XDP or packet
 * sockets, a DPDK port. This header is all that is needed: C11, Linux 5.14.
 *
 *     struct xbond_follow bond;
 *     struct xbond_slave active;
 *     int error = xbond_follow_open(&bond, "bond0");    // 0, or an errno as a negative number
 *     while (running) {
 *         if (xbond_follow_active(&bond, &active))      // once for each batch: loads, no system call
 *             send_batch(socket_of(active.ifindex), active.mac);
 *     }
 *     xbond_follow_close(&bond);
 *
 * The memory is read-only here, and readable whether or not an agent runs. docs/reference/follow.md states the layout, which
 * is a promise for all versions 1.x, and what a program has to do besides.
 */
#ifndef XBOND_FOLLOW_H
#define XBOND_FOLLOW_H

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* -std=c11 hides it in <unistd.h>. */
extern long syscall(long number, ...);

/* The number of slots, and so of slaves, of a bond. */
#define XBOND_MAX_SLAVES 16

/* The layout. */
#define XBOND_SLAVE_SIZE 48        /* bytes of a value of SLAVES */
#define XBOND_SLAVE_WIRE_MAC 0     /* six bytes in wire order, two of zero: one aligned 64-bit word */
#define XBOND_SLAVE_IFINDEX 32     /* aligned 32-bit word; 0: the slot is free */

/* A slave of the bond. */
struct xbond_slave {
    int slot;         /* 0 to 15; kept until the slave is released */
    uint32_t ifindex; /* of its device */
    uint8_t mac[6];   /* the source MAC address of frames that leave through it while it is active */
};

/* The maps of one bond. Threads may share it. */
struct xbond_follow {
    const unsigned char *active;
    const unsigned char *slaves;
    uint32_t active_id;
    char pin[108]; /* of ACTIVE; empty if the program got descriptors */
};

/* ---- the word ---- */

/* Returns the slot of the slave that transmits and receives, -1 if the bond has no active slave. */
static inline int xbond_word_active(uint64_t word) { return word & 1 ? (int)(word >> 12 & 0xf) : -1; }

/* Returns the slot of the former active slave of a planned switch, which still receives unicast for a moment and
 * transmits no more; -1 if there is none. */
static inline int xbond_word_draining(uint64_t word) { return word & 2 ? (int)(word >> 8 & 0xf) : -1; }

/* Returns the number of changes of the active slave, which wraps at 64. */
static inline unsigned xbond_word_switches(uint64_t word) { return (unsigned)(word >> 2 & 0x3f); }

/* Returns a bit for each slot whose slave may become active: bit N for slot N. */
static inline uint16_t xbond_word_usable(uint64_t word) { return (uint16_t)(word >> 16); }

/* Returns the number of changes of the word, which wraps. */
static inline uint32_t xbond_word_generation(uint64_t word) { return (uint32_t)(word >> 32); }

/* Returns whether the bond would accept a frame that the slave in this slot received: the active slave receives
 * everything, a draining one unicast, a backup nothing. is_group: bit 0 of the frame's first byte is set. This is the rule
 * without all_slaves_active. */
static inline bool xbond_word_delivers(uint64_t word, int slot, bool is_group) {
    if (slot < 0) return false;
    return slot == xbond_word_active(word) || (!is_group && slot == xbond_word_draining(word));
}

/* ---- helpers of this header ---- */

struct xbond_follow_map_info {
    uint32_t type, id, key_size, value_size, max_entries, map_flags;
    char name[16];
};

/* For reading and writing: the kernel maps a map into memory only by such a descriptor, also where the memory is
 * read-only. */
static inline int xbond_follow_open_pin(const char *path) {
    struct { uint64_t path; uint32_t fd, flags; } attr = { (uint64_t)(uintptr_t)path, 0, 0 };
    long fd = syscall(SYS_bpf, 7 /* BPF_OBJ_GET */, &attr, sizeof attr);
    return fd < 0 ? -errno : (int)fd;
}

static inline int xbond_follow_map_info(int fd, struct xbond_follow_map_info *info) {
    struct { uint32_t fd, length; uint64_t info; } attr = { (uint32_t)fd, sizeof *info, (uint64_t)(uintptr_t)info };
    memset(info, 0, sizeof *info);
    return syscall(SYS_bpf, 15 /* BPF_OBJ_GET_INFO_BY_FD */, &attr, sizeof attr) < 0 ? -errno : 0;
}

/* Maps an array of this shape; -EPROTO if the map is another one. */
static inline int xbond_follow_map(int fd, const char *name, uint32_t size, uint32_t entries,
                                   const unsigned char **at, uint32_t *id) {
    struct xbond_follow_map_info info;
    int error = xbond_follow_map_info(fd, &info);
    if (error) return error;
    if (info.type != 2 /* BPF_MAP_TYPE_ARRAY */ || info.key_size != 4 || info.value_size != size ||
        info.max_entries != entries || !(info.map_flags & 1u << 10 /* BPF_F_MMAPABLE */) ||
        strncmp(info.name, name, sizeof info.name))
        return -EPROTO;
    void *start = mmap(NULL, (size_t)size * entries, PROT_READ, MAP_SHARED, fd, 0);
    if (start == MAP_FAILED) return -errno;
    *at = (const unsigned char *)start;
    *id = info.id;
    return 0;
}

/* ---- the bond ---- */

/* Unmaps the maps. */
static inline void xbond_follow_close(struct xbond_follow *bond) {
    if (bond->active) munmap((void *)(uintptr_t)bond->active, 8);
    if (bond->slaves) munmap((void *)(uintptr_t)bond->slaves, XBOND_SLAVE_SIZE * XBOND_MAX_SLAVES);
    memset(bond, 0, sizeof *bond);
}

/* Follows the bond with these maps, for a program that may not open pins: a privileged one opens ACTIVE and SLAVES
 * (BPF_OBJ_GET without BPF_F_RDONLY) and passes the descriptors. They may be closed afterwards. Returns 0, -EPROTO if a map is
 * another one, or another errno as a negative number. */
static inline int xbond_follow_from_maps(struct xbond_follow *bond, int active, int slaves) {
    uint32_t unused;
    memset(bond, 0, sizeof *bond);
    int error = xbond_follow_map(active, "ACTIVE", 8, 1, &bond->active, &bond->active_id);
    if (!error)
        error = xbond_follow_map(slaves, "SLAVES", XBOND_SLAVE_SIZE, XBOND_MAX_SLAVES, &bond->slaves, &unused);
    if (error) xbond_follow_close(bond);
    return error;
}

/* Follows the bond whose maps are pinned in this directory, as /sys/fs/bpf/xbond/bond0. Returns 0, -ENOENT if there is no
 * such bond, -EPERM or -EACCES if this process may not open its maps, -EPROTO if a version of xbond with other maps made
 * it, or another errno as a negative number. */
static inline int xbond_follow_open_at(struct xbond_follow *bond, const char *pins) {
    char pin[sizeof bond->pin];
    memset(bond, 0, sizeof *bond);
    int length = snprintf(pin, sizeof pin, "%s/SLAVES", pins);
    if (length < 0 || (size_t)length >= sizeof pin) return -ENAMETOOLONG;
    int slaves = xbond_follow_open_pin(pin);
    if (slaves < 0) return slaves;
    memcpy(pin + length - 6, "ACTIVE", 6);
    int active = xbond_follow_open_pin(pin);
    int error = active < 0 ? active : xbond_follow_from_maps(bond, active, slaves);
    if (!error) memcpy(bond->pin, pin, sizeof pin);
    close(slaves);
    if (active >= 0) close(active);
    return error;
}

/* Follows the bond of this name in the network namespace of the calling thread. Returns as xbond_follow_open_at does, and
 * -EINVAL for a name that no bond can have. */
static inline int xbond_follow_open(struct xbond_follow *bond, const char *name) {
    /* The second for processes with another /sys, such as `ip netns exec` starts. */
    static const char *const roots[] = { "/sys/fs/bpf", "/proc/1/root/sys/fs/bpf" };
    char pin_name[46], pins[sizeof bond->pin];
    uint64_t cookie = 0;
    socklen_t length = sizeof cookie;
    size_t at = 0;
    memset(bond, 0, sizeof *bond);
    if (!*name || strlen(name) > 15 || strchr(name, '/') || strchr(name, '%')) return -EINVAL;
    for (; *name; name++) {
        /* bpffs accepts no dots. */
        if (*name == '.') {
            memcpy(pin_name + at, "%2E", 3);
            at += 3;
        } else {
            pin_name[at++] = *name;
        }
    }
    pin_name[at] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    if (fd < 0) return -errno;
    int error = getsockopt(fd, SOL_SOCKET, 71 /* SO_NETNS_COOKIE */, &cookie, &length) ? -errno : 0;
    close(fd);
    for (int root = 0; !error && root < 2; root++) {
        snprintf(pins, sizeof pins, "%s/xbond/%llu/%s", roots[root], (unsigned long long)cookie, pin_name);
        error = xbond_follow_open_at(bond, pins);
        if (error != -ENOENT) return error;
        if (root == 0) error = 0;
    }
    return error;
}

/* Returns ACTIVE as it is at this moment. */
static inline uint64_t xbond_follow_word(const struct xbond_follow *bond) {
    return atomic_load_explicit((const _Atomic uint64_t *)(const void *)bond->active, memory_order_acquire);
}

/* Stores the slave in a slot in *slave. Returns false if the slot is free. */
static inline bool xbond_follow_slave(const struct xbond_follow *bond, int slot, struct xbond_slave *slave) {
    if (slot < 0 || slot >= XBOND_MAX_SLAVES) return false;
    const unsigned char *at = bond->slaves + (size_t)slot * XBOND_SLAVE_SIZE;
    uint64_t mac = atomic_load_explicit((const _Atomic uint64_t *)(const void *)(at + XBOND_SLAVE_WIRE_MAC),
                                        memory_order_acquire);
    slave->slot = slot;
    slave->ifindex = atomic_load_explicit((const _Atomic uint32_t *)(const void *)(at + XBOND_SLAVE_IFINDEX),
                                          memory_order_acquire);
    memcpy(slave->mac, &mac, sizeof slave->mac);
    return slave->ifindex != 0;
}

/* Stores the active slave in *slave, for one batch of frames. Returns false if the bond has none. */
static inline bool xbond_follow_active(const struct xbond_follow *bond, struct xbond_slave *slave) {
    uint64_t word = xbond_follow_word(bond);
    bool found = false;
    for (int attempt = 0; attempt < 8; attempt++) {
        found = xbond_follow_slave(bond, xbond_word_active(word), slave);
        /* If the word is another one now, the slot may have got another slave between the two loads. */
        uint64_t now = xbond_follow_word(bond);
        if (now == word) break;
        word = now;
    }
    return found;
}

/* Waits until the word is not `seen`, and returns it; returns `seen` after timeout_ms milliseconds (negative: no limit).
 * The thread sleeps, and reads the word once in each millisecond. */
static inline uint64_t xbond_follow_wait(const struct xbond_follow *bond, uint64_t seen, int timeout_ms) {
    for (int slept = 0; timeout_ms < 0 || slept < timeout_ms; slept += timeout_ms >= 0) {
        uint64_t word = xbond_follow_word(bond);
        if (word != seen) return word;
        poll(NULL, 0, 1);
    }
    return xbond_follow_word(bond);
}

/* Returns 1 if the bond still has these maps, 0 if it was removed or was created again since; an errno as a negative
 * number if that cannot be known. Two system calls, for a program to call once in a while. */
static inline int xbond_follow_is_current(const struct xbond_follow *bond) {
    struct xbond_follow_map_info info;
    if (!*bond->pin) return -EOPNOTSUPP;
    int fd = xbond_follow_open_pin(bond->pin);
    if (fd < 0) return fd == -ENOENT ? 0 : fd;
    int error = xbond_follow_map_info(fd, &info);
    close(fd);
    return error ? error : info.id == bond->active_id;
}

#endif
