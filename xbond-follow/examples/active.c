/* Prints the active slave of a bond, and again at each change: active BOND [COUNT]; ends after COUNT lines.
 *
 *     cc -std=c11 -Iinclude examples/active.c -o active && ./active bond0
 */
#include <stdlib.h>

#include "xbond_follow.h"

static void print(const struct xbond_follow *bond) {
    struct xbond_slave slave;
    if (!xbond_follow_active(bond, &slave)) {
        puts("none");
    } else {
        printf("slot %d ifindex %u mac %02x:%02x:%02x:%02x:%02x:%02x\n", slave.slot, slave.ifindex, slave.mac[0],
               slave.mac[1], slave.mac[2], slave.mac[3], slave.mac[4], slave.mac[5]);
    }
    fflush(stdout);
}

int main(int count, char **words) {
    struct xbond_follow bond;
    if (count < 2) {
        fprintf(stderr, "usage: %s BOND [COUNT]\n", words[0]);
        return 2;
    }
    int error = xbond_follow_open(&bond, words[1]);
    if (error) {
        fprintf(stderr, "%s: %s\n", words[1], strerror(-error));
        return 1;
    }
    long lines = count > 2 ? atol(words[2]) : -1;
    for (;;) {
        uint64_t word = xbond_follow_word(&bond);
        print(&bond);
        if (lines > 0 && --lines == 0) break;
        /* A change of something else than the active slave prints nothing. */
        uint64_t now = word;
        while (xbond_word_switches(now) == xbond_word_switches(word)) {
            now = xbond_follow_wait(&bond, now, 1000);
            int current = xbond_follow_is_current(&bond);
            if (current < 1) {
                fprintf(stderr, "%s: the bond is gone\n", words[1]);
                return 1;
            }
        }
    }
    xbond_follow_close(&bond);
    return 0;
}
