/* An echo server and its clients, all on one loop around epoll_wait: the server's connections by level, the
 * clients' by edge, timers by the time that it waits, and an eventfd by which a client says that it is done.
 */
#define _GNU_SOURCE
#include "checksum.h"
#include "programs.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE 60000    /* milliseconds in which something has to happen */
#define APART 5           /* milliseconds between the beginnings of two clients */
#define PAUSE 80          /* milliseconds between two messages of a client */
#define SMALL 8192        /* bytes of the sockets' buffers */
#define LARGEST (1 << 16) /* bytes of one of a client's messages, for which there is not room at once */

struct loop;

/* What an event is for. */
struct handler {
  int fd;
  int (*handle)(struct loop* l, struct handler* h, uint32_t events);
};

struct connection {
  struct handler handler;
  struct connection* next;
  size_t from; /* what was read and not yet written: [from, to) */
  size_t to;
  char buffer[16384];
};

struct client {
  struct handler handler;
  int number;
  long due; /* when it begins, or sends the next message; -1 while one is under way */
  int connected;
  int messages; /* that have come back */
  size_t size;  /* of the one under way */
  size_t sent;
  size_t received;
  size_t bytes;
  uint32_t checksum;
};

struct loop {
  int epoll;
  struct handler listener;
  struct handler done; /* an eventfd */
  struct sockaddr_in address;
  struct connection* connections;
  struct client* clients;
  int count; /* of clients */
  int messages;
  int finished; /* clients */
  int open;     /* the server's connections */
  int accepted;
  size_t echoed;
  FILE* out;
};

static int complain(const struct loop* l, const char* call) {
  fprintf(l->out, "event_loop: %s: %s\n", call, strerror(errno));
  return -1;
}

static long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (long)(t.tv_sec * 1000 + t.tv_nsec / 1000000);
}

static int watch(const struct loop* l, int how, struct handler* h, uint32_t events) {
  struct epoll_event event = {0};
  event.events = events;
  event.data.ptr = h;
  return epoll_ctl(l->epoll, how, h->fd, &event) == 0 ? 0 : complain(l, "epoll_ctl");
}

/* --- the server */

static void hang_up(struct loop* l, struct connection* c) {
  struct connection** at = &l->connections;
  while (*at != c) {
    at = &(*at)->next;
  }
  *at = c->next;
  close(c->handler.fd);
  free(c);
  --l->open;
}

/* It reads only when all is written, so it never holds more than a buffer. */
static int handle_connection(struct loop* l, struct handler* h, uint32_t events) {
  struct connection* const c = (struct connection*)h;
  ssize_t done = 0;
  if (c->from == c->to && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
    done = read(h->fd, c->buffer, sizeof(c->buffer));
    if (done < 0 && errno == EAGAIN) {
      return 0;
    }
    if (done <= 0) {
      hang_up(l, c);
      return 0;
    }
    c->from = 0;
    c->to = (size_t)done;
  }
  done = write(h->fd, c->buffer + c->from, c->to - c->from);
  if (done < 0 && errno != EAGAIN) {
    return complain(l, "write");
  }
  if (done > 0) {
    c->from += (size_t)done;
    l->echoed += (size_t)done;
  }
  return watch(l, EPOLL_CTL_MOD, h, c->from == c->to ? EPOLLIN : EPOLLOUT);
}

static int handle_listener(struct loop* l, struct handler* h, uint32_t events) {
  struct connection* c = NULL;
  const int fd = accept4(h->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  (void)events;
  if (fd < 0) {
    return errno == EAGAIN ? 0 : complain(l, "accept4");
  }
  c = calloc(1, sizeof(*c));
  if (c == NULL) {
    close(fd);
    return complain(l, "calloc");
  }
  c->handler.fd = fd;
  c->handler.handle = handle_connection;
  c->next = l->connections;
  l->connections = c;
  ++l->open;
  ++l->accepted;
  return watch(l, EPOLL_CTL_ADD, &c->handler, EPOLLIN);
}

static int begin_to_listen(struct loop* l) {
  const int small = SMALL;
  socklen_t size = sizeof(l->address);
  struct sockaddr* const address = (struct sockaddr*)&l->address;
  l->listener.handle = handle_listener;
  l->listener.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (l->listener.fd < 0) {
    return complain(l, "socket");
  }
  setsockopt(l->listener.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)); /* of those that it accepts */
  l->address.sin_family = AF_INET;
  l->address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(l->listener.fd, address, size) != 0 || listen(l->listener.fd, 64) != 0 ||
      getsockname(l->listener.fd, address, &size) != 0) {
    return complain(l, "listen");
  }
  return watch(l, EPOLL_CTL_ADD, &l->listener, EPOLLIN);
}

/* --- the clients */

static size_t size_of_next(const struct loop* l, const struct client* c) {
  const size_t number = (size_t)c->messages;
  return number == (size_t)(c->number * 7 + 3) % (size_t)l->messages ? LARGEST
                                                                     : 1 + number * number * 37 % 9000;
}

static char byte_of(const struct client* c, size_t at) {
  return (char)(c->number * 17 + c->messages * 31 + (int)(at % 251));
}

/* As much as there is room for: 1 if all is sent, 0 if not. */
static int send_some(struct loop* l, struct client* c) {
  char piece[4096];
  while (c->sent < c->size) {
    const size_t left = c->size - c->sent;
    const size_t size = left < sizeof(piece) ? left : sizeof(piece);
    ssize_t done = 0;
    size_t i;
    for (i = 0; i < size; ++i) {
      piece[i] = byte_of(c, c->sent + i);
    }
    done = send(c->handler.fd, piece, size, MSG_NOSIGNAL);
    if (done < 0) {
      return errno == EAGAIN ? 0 : complain(l, "send");
    }
    c->sent += (size_t)done;
  }
  return 1;
}

/* As much as there is: 1 if that is all of the message, 0 if not. */
static int receive_some(struct loop* l, struct client* c) {
  char piece[4096];
  while (c->received < c->size) {
    const size_t left = c->size - c->received;
    const ssize_t done = recv(c->handler.fd, piece, left < sizeof(piece) ? left : sizeof(piece), 0);
    if (done < 0) {
      return errno == EAGAIN ? 0 : complain(l, "recv");
    }
    if (done == 0) {
      errno = ECONNRESET;
      return complain(l, "recv");
    }
    c->checksum = checksum_add(c->checksum, piece, (size_t)done);
    c->received += (size_t)done;
  }
  return 1;
}

static int finish(struct loop* l, struct client* c) {
  const uint64_t one = 1;
  close(c->handler.fd);
  c->handler.fd = -1;
  return write(l->done.fd, &one, sizeof(one)) == (ssize_t)sizeof(one) ? 0 : complain(l, "write");
}

/* An edge is told once, so it goes on until both ways are stuck, or the message has come back. */
static int exchange(struct loop* l, struct client* c) {
  int sent = 0;
  int received = 0;
  c->size = size_of_next(l, c);
  sent = send_some(l, c);
  received = sent < 0 ? -1 : receive_some(l, c);
  if (sent <= 0 || received <= 0) {
    return sent < 0 || received < 0 ? -1 : 0;
  }
  c->bytes += c->size;
  c->sent = 0;
  c->received = 0;
  ++c->messages;
  if (c->messages == l->messages) {
    return finish(l, c);
  }
  c->due = now() + PAUSE;
  return 0;
}

static int handle_client(struct loop* l, struct handler* h, uint32_t events) {
  struct client* const c = (struct client*)h;
  if (!c->connected && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0) {
    int error = 0;
    socklen_t size = sizeof(error);
    getsockopt(h->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) {
      errno = error;
      return complain(l, "connect");
    }
    c->connected = 1;
  }
  return c->due < 0 ? exchange(l, c) : 0;
}

static int begin(struct loop* l, struct client* c) {
  const int small = SMALL;
  fprintf(l->out, "client %d begins\n", c->number);
  c->handler.handle = handle_client;
  c->handler.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (c->handler.fd < 0) {
    return complain(l, "socket");
  }
  setsockopt(c->handler.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
  if (connect(c->handler.fd, (const struct sockaddr*)&l->address, sizeof(l->address)) != 0 &&
      errno != EINPROGRESS) {
    return complain(l, "connect");
  }
  return watch(l, EPOLL_CTL_ADD, &c->handler, EPOLLIN | EPOLLOUT | EPOLLET);
}

static int handle_done(struct loop* l, struct handler* h, uint32_t events) {
  uint64_t count = 0;
  (void)events;
  if (read(h->fd, &count, sizeof(count)) != (ssize_t)sizeof(count)) {
    return errno == EAGAIN ? 0 : complain(l, "read");
  }
  l->finished += (int)count;
  return 0;
}

/* --- the loop */

/* Does what is due, and says for how long nothing else is. */
static int fire_timers(struct loop* l, int* milliseconds) {
  int i;
  *milliseconds = PATIENCE;
  for (i = 0; i < l->count; ++i) {
    struct client* const c = &l->clients[i];
    const long left = c->due < 0 ? PATIENCE : c->due - now();
    if (c->due >= 0 && left <= 0) {
      c->due = -1;
      if ((c->handler.fd < 0 ? begin(l, c) : exchange(l, c)) != 0) {
        return -1;
      }
    } else if (left < *milliseconds) {
      *milliseconds = (int)left;
    }
  }
  return 0;
}

static int run(struct loop* l) {
  struct epoll_event events[8];
  while (l->finished < l->count || l->open > 0) {
    int milliseconds = 0;
    int ready = 0;
    int i;
    if (fire_timers(l, &milliseconds) != 0) {
      return -1;
    }
    ready = epoll_wait(l->epoll, events, (int)(sizeof(events) / sizeof(events[0])), milliseconds);
    if (ready == 0 && milliseconds == PATIENCE) {
      errno = ETIMEDOUT;
    }
    if ((ready == 0 && milliseconds == PATIENCE) || (ready < 0 && errno != EINTR)) {
      return complain(l, "epoll_wait");
    }
    for (i = 0; i < ready; ++i) {
      struct handler* const h = events[i].data.ptr;
      if (h->handle(l, h, events[i].events) != 0) {
        return -1;
      }
    }
  }
  return 0;
}

static int set_up(struct loop* l) {
  int i;
  l->epoll = epoll_create1(EPOLL_CLOEXEC);
  l->done.handle = handle_done;
  l->done.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (l->epoll < 0 || l->done.fd < 0) {
    return complain(l, "epoll_create1");
  }
  for (i = 0; i < l->count; ++i) {
    l->clients[i].number = i;
    l->clients[i].due = now() + (long)i * APART;
    l->clients[i].handler.fd = -1;
    l->clients[i].checksum = CHECKSUM_START;
  }
  return begin_to_listen(l) != 0 || watch(l, EPOLL_CTL_ADD, &l->done, EPOLLIN) != 0 ? -1 : 0;
}

static void close_if_open(int fd) {
  if (fd >= 0) {
    close(fd);
  }
}

static void tear_down(struct loop* l) {
  int i;
  while (l->connections != NULL) {
    hang_up(l, l->connections);
  }
  for (i = 0; i < l->count; ++i) {
    close_if_open(l->clients[i].handler.fd);
  }
  close_if_open(l->listener.fd);
  close_if_open(l->done.fd);
  close_if_open(l->epoll);
}

int event_loop(int argc, char** argv, FILE* out) {
  struct loop l = {0};
  int status = 1;
  int i;
  if (argc != 3) {
    fprintf(out, "usage: event_loop CLIENTS MESSAGES\n");
    return 2;
  }
  l.out = out;
  l.epoll = l.done.fd = l.listener.fd = -1;
  l.count = atoi(argv[1]);
  l.messages = atoi(argv[2]);
  l.clients = calloc((size_t)l.count + 1, sizeof(*l.clients));
  if (l.clients == NULL) {
    return 1;
  }
  if (set_up(&l) == 0 && run(&l) == 0) {
    for (i = 0; i < l.count; ++i) {
      fprintf(out, "client %d: %d messages, %zu bytes, %08x\n", i, l.clients[i].messages, l.clients[i].bytes,
              (unsigned)l.clients[i].checksum);
    }
    fprintf(out, "the server took %d clients and echoed %zu bytes\n", l.accepted, l.echoed);
    status = 0;
  }
  tear_down(&l);
  free(l.clients);
  return status;
}
