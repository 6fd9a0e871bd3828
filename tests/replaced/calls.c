/* A call of each name, and the address of each: C, and C++, too. Whether the headers show those of GNU and of
 * the default set is decided by the line that the test puts before all this. */
#include <netdb.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

typedef void (*any_function)(void);
extern const any_function addresses[];
const any_function addresses[] = {
    (any_function)&select,
    (any_function)&pselect,
    (any_function)&poll,
    (any_function)&epoll_wait,
    (any_function)&epoll_pwait,
    (any_function)&epoll_pwait2,
    (any_function)&sleep,
    (any_function)&nanosleep,
    (any_function)&write,
    (any_function)&read,
    (any_function)&clock_nanosleep,
    (any_function)&readv,
    (any_function)&writev,
    (any_function)&recv,
    (any_function)&recvfrom,
    (any_function)&recvmsg,
    (any_function)&send,
    (any_function)&sendto,
    (any_function)&sendmsg,
    (any_function)&accept,
    (any_function)&connect,
    (any_function)&close,
    (any_function)&getaddrinfo,
#ifdef _DEFAULT_SOURCE
    (any_function)&usleep,
#endif
#ifdef _GNU_SOURCE
    (any_function)&ppoll,
    (any_function)&accept4,
#endif
};

struct all_of_it {
  fd_set* set;
  struct timeval* interval;
  struct timespec* time;
  const sigset_t* mask;
  struct pollfd* fds;
  struct epoll_event* events;
  struct iovec* pieces;
  struct msghdr* message;
  struct sockaddr* peer;
  socklen_t* peer_size;
  void* bytes;
  struct addrinfo* answer;
};

long call_each(int fd, size_t size, struct all_of_it* it);
long call_each(int fd, size_t size, struct all_of_it* it) {
  long sum = select(fd, it->set, NULL, NULL, it->interval);
  sum += pselect(fd, it->set, NULL, NULL, it->time, it->mask);
  sum += poll(it->fds, size, fd);
  sum += epoll_wait(fd, it->events, 1, fd);
  sum += epoll_pwait(fd, it->events, 1, fd, it->mask);
  sum += epoll_pwait2(fd, it->events, 1, it->time, it->mask);
  sum += sleep(1);
  sum += nanosleep(it->time, NULL);
  sum += clock_nanosleep(CLOCK_MONOTONIC, 0, it->time, NULL);
  sum += read(fd, it->bytes, size);
  sum += write(fd, it->bytes, size);
  sum += readv(fd, it->pieces, 1);
  sum += writev(fd, it->pieces, 1);
  sum += recv(fd, it->bytes, size, 0);
  sum += recvfrom(fd, it->bytes, size, 0, it->peer, it->peer_size);
  sum += recvmsg(fd, it->message, 0);
  sum += send(fd, it->bytes, size, 0);
  sum += sendto(fd, it->bytes, size, 0, it->peer, *it->peer_size);
  sum += sendmsg(fd, it->message, 0);
  sum += accept(fd, it->peer, it->peer_size);
  sum += getaddrinfo(NULL, "80", NULL, &it->answer);
  sum += connect(fd, it->peer, *it->peer_size);
  sum += close(fd);
#ifdef _DEFAULT_SOURCE
  sum += usleep(1);
#endif
#ifdef _GNU_SOURCE
  sum += ppoll(it->fds, size, it->time, it->mask);
  sum += accept4(fd, it->peer, it->peer_size, 0);
#endif
  return sum;
}

/* With room of a size that is known, for a size that is not. */
long call_each_checked(int fd, size_t size, struct all_of_it* it);
long call_each_checked(int fd, size_t size, struct all_of_it* it) {
  static struct pollfd fds[2];
  static char bytes[8];
  long sum = poll(fds, size, fd);
  sum += read(fd, bytes, size);
  sum += recv(fd, bytes, size, 0);
  sum += recvfrom(fd, bytes, size, 0, it->peer, it->peer_size);
#ifdef _GNU_SOURCE
  sum += ppoll(fds, size, it->time, it->mask);
#endif
  return sum + fds[0].revents + bytes[0];
}
