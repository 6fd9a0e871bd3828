/* A chat server on select. It waits until as many clients have come as it was told, says so to all, and then
 * sends each line of one to all of them. When all have left it prints what it has seen. */
#include "programs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LONGEST_LINE 512

struct visitor {
  int socket; /* -1 when it has left */
  size_t have;
  char line[LONGEST_LINE]; /* what has come of the next */
};

struct server {
  int listener;
  int expected;
  int came;
  int left;
  long lines;
  long bytes;
  struct visitor* visitors;
  FILE* out;
};

static int complain(const struct server* s, const char* call) {
  fprintf(s->out, "chat_server: %s: %s\n", call, strerror(errno));
  return -1;
}

static int listen_at(struct server* s, const char* path) {
  struct sockaddr_un address = {0};
  address.sun_family = AF_UNIX;
  if (strlen(path) >= sizeof(address.sun_path)) {
    errno = ENAMETOOLONG;
    return complain(s, path);
  }
  strcpy(address.sun_path, path);
  s->listener = socket(AF_UNIX, SOCK_STREAM, 0);
  if (s->listener < 0 || s->listener >= FD_SETSIZE) {
    return complain(s, "socket");
  }
  if (bind(s->listener, (struct sockaddr*)&address, sizeof(address)) != 0) {
    return complain(s, "bind");
  }
  return listen(s->listener, 64) == 0 ? 0 : complain(s, "listen");
}

static void leave(struct server* s, struct visitor* v) {
  close(v->socket);
  v->socket = -1;
  ++s->left;
}

/* A client that takes nothing in holds up all the others: so it is with servers as plain as this one. */
static int send_to_all(struct server* s, const char* data, size_t size) {
  int i;
  for (i = 0; i < s->came; ++i) {
    struct visitor* const v = &s->visitors[i];
    size_t sent = 0;
    while (v->socket >= 0 && sent < size) {
      const ssize_t done = send(v->socket, data + sent, size - sent, MSG_NOSIGNAL);
      if (done >= 0) {
        sent += (size_t)done;
      } else if (errno == EPIPE || errno == ECONNRESET) {
        leave(s, v);
      } else if (errno != EINTR) {
        return complain(s, "send");
      }
    }
  }
  return 0;
}

static int welcome(struct server* s) {
  struct visitor* const v = &s->visitors[s->came];
  v->socket = accept(s->listener, NULL, NULL);
  if (v->socket < 0) {
    return complain(s, "accept");
  }
  if (v->socket >= FD_SETSIZE) {
    close(v->socket);
    v->socket = -1;
    errno = EMFILE;
    return complain(s, "accept");
  }
  ++s->came;
  return s->came < s->expected ? 0 : send_to_all(s, "*\n", 2);
}

/* Its whole lines go to all, and what is left of the last waits for its end. */
static int hear(struct server* s, struct visitor* v) {
  char* end = NULL;
  const ssize_t got = recv(v->socket, v->line + v->have, sizeof(v->line) - v->have, 0);
  if (got < 0 && errno != ECONNRESET) {
    return errno == EINTR ? 0 : complain(s, "recv");
  }
  if (got <= 0) {
    leave(s, v);
    return 0;
  }
  v->have += (size_t)got;
  while ((end = memchr(v->line, '\n', v->have)) != NULL) {
    const size_t size = (size_t)(end - v->line) + 1;
    ++s->lines;
    s->bytes += (long)size;
    if (send_to_all(s, v->line, size) != 0) {
      return -1;
    }
    v->have -= size;
    memmove(v->line, v->line + size, v->have);
  }
  if (v->have == sizeof(v->line) && v->socket >= 0) {
    leave(s, v); /* no line is so long */
  }
  return 0;
}

static int serve(struct server* s) {
  while (s->left < s->expected) {
    fd_set readers;
    int highest = -1;
    int i;
    FD_ZERO(&readers);
    if (s->came < s->expected) {
      FD_SET(s->listener, &readers);
      highest = s->listener;
    }
    for (i = 0; i < s->came; ++i) {
      const int socket = s->visitors[i].socket;
      if (socket >= 0) {
        FD_SET(socket, &readers);
        highest = socket > highest ? socket : highest;
      }
    }
    if (select(highest + 1, &readers, NULL, NULL, NULL) < 0) {
      if (errno == EINTR) {
        continue;
      }
      return complain(s, "select");
    }
    for (i = 0; i < s->came; ++i) {
      const int socket = s->visitors[i].socket;
      if (socket >= 0 && FD_ISSET(socket, &readers) && hear(s, &s->visitors[i]) != 0) {
        return -1;
      }
    }
    if (s->came < s->expected && FD_ISSET(s->listener, &readers) && welcome(s) != 0) {
      return -1;
    }
  }
  return 0;
}

int chat_server(int argc, char** argv, FILE* out) {
  struct server s = {0};
  int status = 1;
  int i;
  if (argc != 3) {
    fprintf(out, "usage: chat_server PATH CLIENTS\n");
    return 2;
  }
  s.out = out;
  s.expected = atoi(argv[2]);
  s.visitors = calloc((size_t)s.expected + 1, sizeof(*s.visitors));
  s.listener = -1;
  if (s.visitors != NULL && listen_at(&s, argv[1]) == 0) {
    if (serve(&s) == 0) {
      fprintf(out, "%d came and left, %ld lines, %ld bytes\n", s.left, s.lines, s.bytes);
      status = 0;
    }
    unlink(argv[1]);
  }
  for (i = 0; i < s.came; ++i) {
    if (s.visitors[i].socket >= 0) {
      close(s.visitors[i].socket);
    }
  }
  if (s.listener >= 0) {
    close(s.listener);
  }
  free(s.visitors);
  return status;
}
