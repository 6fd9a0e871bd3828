#include "drop_in_calls.h"

#include <annulet/selector/posix.h>

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

typedef const struct drop_in_ends* ends_of_call;

static const struct timespec an_hour = {3600, 0};

static const sigset_t* no_signal(void) {
  static sigset_t none;
  sigemptyset(&none);
  return &none;
}

static struct pollfd polled(ends_of_call e) {
  struct pollfd one;
  one.fd = e->fd;
  one.events = POLLIN;
  one.revents = 0;
  return one;
}

static fd_set set_of(ends_of_call e) {
  fd_set in;
  FD_ZERO(&in);
  FD_SET(e->fd, &in);
  return in;
}

static struct iovec sent(ends_of_call e) {
  struct iovec one;
  one.iov_base = (void*)e->bytes;
  one.iov_len = e->size;
  return one;
}

static struct msghdr message_of(struct iovec* one) {
  struct msghdr message;
  memset(&message, 0, sizeof(message));
  message.msg_iov = one;
  message.msg_iovlen = 1;
  return message;
}

static long call_poll(ends_of_call e) {
  struct pollfd one = polled(e);
  return annulet_poll(&one, 1, 1000);
}
static long call_ppoll(ends_of_call e) {
  struct pollfd one = polled(e);
  return annulet_ppoll(&one, 1, &an_hour, no_signal());
}
static long call_select(ends_of_call e) {
  fd_set in = set_of(e);
  struct timeval time = {1, 0};
  return annulet_select(e->fd + 1, &in, NULL, NULL, &time);
}
static long call_pselect(ends_of_call e) {
  fd_set in = set_of(e);
  return annulet_pselect(e->fd + 1, &in, NULL, NULL, &an_hour, no_signal());
}
static long call_epoll_wait(ends_of_call e) {
  struct epoll_event event;
  return annulet_epoll_wait(e->epoll, &event, 1, 1000);
}
static long call_epoll_pwait(ends_of_call e) {
  struct epoll_event event;
  return annulet_epoll_pwait(e->epoll, &event, 1, 1000, no_signal());
}
static long call_epoll_pwait2(ends_of_call e) {
  struct epoll_event event;
  return annulet_epoll_pwait2(e->epoll, &event, 1, &an_hour, NULL);
}

static long call_sleep(ends_of_call e) {
  (void)e;
  errno = 0; /* once it is killed, what is left is 0 */
  return annulet_sleep(3600) == 0 && errno == 0 ? 1 : -1;
}
static long call_usleep(ends_of_call e) {
  (void)e;
  return annulet_usleep(3600000000U);
}
static long call_nanosleep(ends_of_call e) {
  (void)e;
  return annulet_nanosleep(&an_hour, NULL);
}
static long call_clock_nanosleep(ends_of_call e) {
  (void)e;
  errno = annulet_clock_nanosleep(CLOCK_BOOTTIME, 0, &an_hour, NULL);
  return errno == 0 ? 0 : -1;
}

static long call_read(ends_of_call e) {
  char byte;
  return annulet_read(e->fd, &byte, 1);
}
static long call_readv(ends_of_call e) {
  char byte;
  struct iovec one;
  one.iov_base = &byte;
  one.iov_len = 1;
  return annulet_readv(e->fd, &one, 1);
}
static long call_recv(ends_of_call e) {
  char byte;
  return annulet_recv(e->fd, &byte, 1, 0);
}
static long call_recvfrom(ends_of_call e) {
  char byte;
  return annulet_recvfrom(e->fd, &byte, 1, 0, NULL, NULL);
}
static long call_recvmsg(ends_of_call e) {
  char byte;
  struct iovec one;
  struct msghdr message = message_of(&one);
  one.iov_base = &byte;
  one.iov_len = 1;
  return annulet_recvmsg(e->fd, &message, 0);
}

static long call_write(ends_of_call e) { return annulet_write(e->fd, e->bytes, e->size); }
static long call_writev(ends_of_call e) {
  const struct iovec one = sent(e);
  return annulet_writev(e->fd, &one, 1);
}
static long call_send(ends_of_call e) { return annulet_send(e->fd, e->bytes, e->size, 0); }
static long call_sendto(ends_of_call e) { return annulet_sendto(e->fd, e->bytes, e->size, 0, NULL, 0); }
static long call_sendmsg(ends_of_call e) {
  struct iovec one = sent(e);
  const struct msghdr message = message_of(&one);
  return annulet_sendmsg(e->fd, &message, 0);
}

static long call_accept(ends_of_call e) { return annulet_accept(e->fd, NULL, NULL); }
static long call_accept4(ends_of_call e) { return annulet_accept4(e->fd, NULL, NULL, SOCK_CLOEXEC); }
static long call_connect(ends_of_call e) {
  return annulet_connect(e->fd, e->peer, e->peer_size) == 0 ? 1 : -1;
}

#ifdef __cplusplus
const struct drop_in_call drop_in_calls_in_cpp[] = {
#else
const struct drop_in_call drop_in_calls_in_c[] = {
#endif
    {"poll", EVENT_BYTE, call_poll},
    {"ppoll", EVENT_BYTE, call_ppoll},
    {"select", EVENT_BYTE, call_select},
    {"pselect", EVENT_BYTE, call_pselect},
    {"epoll_wait", EVENT_BYTE, call_epoll_wait},
    {"epoll_pwait", EVENT_BYTE, call_epoll_pwait},
    {"epoll_pwait2", EVENT_BYTE, call_epoll_pwait2},
    {"sleep", EVENT_NONE, call_sleep},
    {"usleep", EVENT_NONE, call_usleep},
    {"nanosleep", EVENT_NONE, call_nanosleep},
    {"clock_nanosleep", EVENT_NONE, call_clock_nanosleep},
    {"read", EVENT_BYTE_TAKEN, call_read},
    {"readv", EVENT_BYTE_TAKEN, call_readv},
    {"recv", EVENT_BYTE_TAKEN, call_recv},
    {"recvfrom", EVENT_BYTE_TAKEN, call_recvfrom},
    {"recvmsg", EVENT_BYTE_TAKEN, call_recvmsg},
    {"write", EVENT_ROOM, call_write},
    {"writev", EVENT_ROOM, call_writev},
    {"send", EVENT_ROOM, call_send},
    {"sendto", EVENT_ROOM, call_sendto},
    {"sendmsg", EVENT_ROOM, call_sendmsg},
    {"accept", EVENT_CONNECTION, call_accept},
    {"accept4", EVENT_CONNECTION, call_accept4},
    {"connect", EVENT_ACCEPTANCE, call_connect},
};

#ifndef __cplusplus
const size_t drop_in_call_count = sizeof(drop_in_calls_in_c) / sizeof(drop_in_calls_in_c[0]);
#endif
