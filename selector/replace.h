/* For code that knows nothing of annulet: its calls of select, read, close and the others below become the
 * drop-ins of <annulet/selector/posix.h>. No source changes, only the build line. C and C++, GCC and clang,
 * with and without _FORTIFY_SOURCE.
 *
 *   cc -include annulet/selector/replace.h $(pkg-config --cflags annulet) -c ported.c
 *   cc ported.o $(pkg-config --libs annulet)
 *
 * -DANNULET_KEEP_close leaves close alone, and so with each name. It has to come before all other headers,
 * and refuses to come later.
 *
 * What changes is the symbol that a C function of such a name has in the object file, also where its address
 * is taken. Members, local variables, static functions, methods and whatever else C++ calls so are left
 * alone: that is why none of the names is a macro here, and nothing is included or declared.
 *
 * What it does not reach: libraries, which were compiled without it, and what libc calls for its own ends,
 * as fread and fclose do; names in assembly, and those that dlsym is given. An inline function of C++ that
 * several objects have is the one that the linker takes: all sources of a program are to be compiled with
 * it.
 *
 * Where a C program has a function or a global variable of such a name of its own, keep the name, in all of
 * its sources. It would become annulet_close; or, where GCC saw no declaration before the definition, stay
 * close, and who calls it would reach annulet's: -Wmissing-prototypes finds those.
 *
 * clang says nothing of -Wpragmas in what is compiled so. GCC does where a source declares one of the names
 * with a label of its own (__asm__("close")), which holds.
 */
#pragma once
/* So that older C and C++ take the macros below without a word. */
#pragma GCC system_header

#ifndef __ASSEMBLER__

#ifdef _FEATURES_H
#error "annulet/selector/replace.h goes before all other headers: cc -include annulet/selector/replace.h"
#endif

#ifdef __clang__
/* It warns of each method and each variable with one of the names that a pragma does not apply to it. */
#pragma clang diagnostic ignored "-Wpragmas"
#endif

/* With _FORTIFY_SOURCE, glibc's poll is an inline function. It calls __poll_chk where it knows how large the
 * array is, and else
 *
 *   extern int __poll_alias(struct pollfd*, nfds_t, int) __asm__("poll");
 *
 * whose label is stronger than a pragma. So __poll_alias is a macro: of this declaration it makes two, the
 * first with our label, and a call it makes one of the first. A declaration is known by its first word, which
 * is a type's. (Calls that are known to fail are left with glibc: its __poll_chk ends the process.) */
#define ANNULET_ALIAS(alias, drop_in, label, first, ...) \
  ANNULET_JOIN(ANNULET_ALIAS_, ANNULET_USE(ANNULET_FIRST_##first))(alias, drop_in, label, first, __VA_ARGS__)
#define ANNULET_ALIAS_DECLARED(alias, drop_in, label, ...) \
  drop_in(__VA_ARGS__) __asm__(label), alias(__VA_ARGS__)
#define ANNULET_ALIAS_CALLED(alias, drop_in, label, ...) drop_in(__VA_ARGS__)
#define ANNULET_FIRST_int ~, DECLARED, ~
#define ANNULET_FIRST_struct ~, DECLARED, ~
#define ANNULET_USE(...) ANNULET_SECOND(__VA_ARGS__, CALLED, ~)
#define ANNULET_SECOND(first, second, ...) second
#define ANNULET_JOIN(left, right) ANNULET_JOIN_EXPANDED(left, right)
#define ANNULET_JOIN_EXPANDED(left, right) left##right

#ifndef ANNULET_KEEP_select
#pragma redefine_extname select annulet_select
#endif
#ifndef ANNULET_KEEP_pselect
#pragma redefine_extname pselect annulet_pselect
#endif
#ifndef ANNULET_KEEP_poll
#pragma redefine_extname poll annulet_poll
#pragma redefine_extname __poll_chk annulet_poll_chk
#define __poll_alias(...) ANNULET_ALIAS(__poll_alias, __poll_drop_in, "annulet_poll", __VA_ARGS__)
#endif
#ifndef ANNULET_KEEP_ppoll
#pragma redefine_extname ppoll annulet_ppoll
#pragma redefine_extname __ppoll_chk annulet_ppoll_chk
#define __ppoll_alias(...) ANNULET_ALIAS(__ppoll_alias, __ppoll_drop_in, "annulet_ppoll", __VA_ARGS__)
#endif

#ifndef ANNULET_KEEP_epoll_wait
#pragma redefine_extname epoll_wait annulet_epoll_wait
#endif
#ifndef ANNULET_KEEP_epoll_pwait
#pragma redefine_extname epoll_pwait annulet_epoll_pwait
#endif
#ifndef ANNULET_KEEP_epoll_pwait2
#pragma redefine_extname epoll_pwait2 annulet_epoll_pwait2
#endif

#ifndef ANNULET_KEEP_sleep
#pragma redefine_extname sleep annulet_sleep
#endif
#ifndef ANNULET_KEEP_usleep
#pragma redefine_extname usleep annulet_usleep
#endif
#ifndef ANNULET_KEEP_nanosleep
#pragma redefine_extname nanosleep annulet_nanosleep
#endif
#ifndef ANNULET_KEEP_clock_nanosleep
#pragma redefine_extname clock_nanosleep annulet_clock_nanosleep
#endif

#ifndef ANNULET_KEEP_read
#pragma redefine_extname read annulet_read
#pragma redefine_extname __read_chk annulet_read_chk
#define __read_alias(...) ANNULET_ALIAS(__read_alias, __read_drop_in, "annulet_read", __VA_ARGS__)
#endif
#ifndef ANNULET_KEEP_write
#pragma redefine_extname write annulet_write
#endif
#ifndef ANNULET_KEEP_readv
#pragma redefine_extname readv annulet_readv
#endif
#ifndef ANNULET_KEEP_writev
#pragma redefine_extname writev annulet_writev
#endif

#ifndef ANNULET_KEEP_recv
#pragma redefine_extname recv annulet_recv
#pragma redefine_extname __recv_chk annulet_recv_chk
#define __recv_alias(...) ANNULET_ALIAS(__recv_alias, __recv_drop_in, "annulet_recv", __VA_ARGS__)
#endif
#ifndef ANNULET_KEEP_recvfrom
#pragma redefine_extname recvfrom annulet_recvfrom
#pragma redefine_extname __recvfrom_chk annulet_recvfrom_chk
#define __recvfrom_alias(...) \
  ANNULET_ALIAS(__recvfrom_alias, __recvfrom_drop_in, "annulet_recvfrom", __VA_ARGS__)
#endif
#ifndef ANNULET_KEEP_recvmsg
#pragma redefine_extname recvmsg annulet_recvmsg
#endif
#ifndef ANNULET_KEEP_send
#pragma redefine_extname send annulet_send
#endif
#ifndef ANNULET_KEEP_sendto
#pragma redefine_extname sendto annulet_sendto
#endif
#ifndef ANNULET_KEEP_sendmsg
#pragma redefine_extname sendmsg annulet_sendmsg
#endif

#ifndef ANNULET_KEEP_accept
#pragma redefine_extname accept annulet_accept
#endif
#ifndef ANNULET_KEEP_accept4
#pragma redefine_extname accept4 annulet_accept4
#endif
#ifndef ANNULET_KEEP_connect
#pragma redefine_extname connect annulet_connect
#endif
#ifndef ANNULET_KEEP_close
#pragma redefine_extname close annulet_close
#endif
#ifndef ANNULET_KEEP_getaddrinfo
#pragma redefine_extname getaddrinfo annulet_getaddrinfo
#endif

#endif
