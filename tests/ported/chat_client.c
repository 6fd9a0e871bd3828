/* A client of the chat server, on poll. When all have come it says its lines, one every now and then, as one
 * who types; and it listens until it has heard all lines of all. Prints them in alphabetical order. */
#include "programs.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE 60000 /* milliseconds without a word */
#define PAUSE 100      /* milliseconds between two lines */
#define LONGEST_LINE 512

struct chatter {
  const char* name;
  int socket;
  int said;      /* lines */
  int to_say;    /* lines in all */
  int to_hear;   /* lines in all, its own among them */
  int heard;     /* lines */
  int may_begin; /* all have come */
  long next_at;  /* when it says the next line, in milliseconds */
  char** lines;
  size_t have;
  char buffer[LONGEST_LINE]; /* what has come of the next line */
  size_t sent;
  char line[LONGEST_LINE]; /* the one that it is about to say, of which so much was sent */
  FILE* out;
};

static int complain(const struct chatter* c, const char* call) {
  fprintf(c->out, "chat_client: %s: %s\n", call, strerror(errno));
  return -1;
}

static long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (long)(t.tv_sec * 1000 + t.tv_nsec / 1000000);
}

/* The server may not be there yet. */
static int connect_to(struct chatter* c, const char* path) {
  struct sockaddr_un address = {0};
  int tries = 0;
  address.sun_family = AF_UNIX;
  if (strlen(path) >= sizeof(address.sun_path)) {
    errno = ENAMETOOLONG;
    return complain(c, path);
  }
  strcpy(address.sun_path, path);
  c->socket = socket(AF_UNIX, SOCK_STREAM, 0);
  if (c->socket < 0) {
    return complain(c, "socket");
  }
  while (connect(c->socket, (struct sockaddr*)&address, sizeof(address)) != 0) {
    if ((errno != ENOENT && errno != ECONNREFUSED && errno != EINTR) || ++tries == 1000) {
      return complain(c, "connect");
    }
    if (usleep(10000) != 0 && errno != EINTR) {
      return complain(c, "usleep");
    }
  }
  return fcntl(c->socket, F_SETFL, O_NONBLOCK) == 0 ? 0 : complain(c, "fcntl");
}

static void take_line(struct chatter* c, size_t size) {
  if (c->buffer[0] == '*') {
    c->may_begin = 1;
    c->next_at = now();
  } else if (c->heard < c->to_hear) {
    c->lines[c->heard] = strndup(c->buffer, size - 1);
    c->heard += c->lines[c->heard] != NULL;
  }
}

/* All that has come. */
static int hear(struct chatter* c) {
  for (;;) {
    char* end = NULL;
    const ssize_t got = read(c->socket, c->buffer + c->have, sizeof(c->buffer) - c->have);
    if (got < 0) {
      return errno == EAGAIN || errno == EINTR ? 0 : complain(c, "read");
    }
    if (got == 0) {
      fprintf(c->out, "chat_client: the server has left\n");
      return -1;
    }
    c->have += (size_t)got;
    while ((end = memchr(c->buffer, '\n', c->have)) != NULL) {
      const size_t size = (size_t)(end - c->buffer) + 1;
      take_line(c, size);
      c->have -= size;
      memmove(c->buffer, c->buffer + size, c->have);
    }
    if (c->have == sizeof(c->buffer)) {
      fprintf(c->out, "chat_client: a line without an end\n");
      return -1;
    }
  }
}

static int has_line_to_say(const struct chatter* c) {
  return c->may_begin && c->said < c->to_say && c->next_at <= now();
}

/* As much of it as there is room for. */
static int say(struct chatter* c) {
  size_t size = 0;
  ssize_t done = 0;
  if (c->sent == 0) {
    snprintf(
        c->line, sizeof(c->line), "%s %04d: %.*s\n", c->name, c->said, 10 + c->said * 7 % 300,
        "how do you do, and how is it where you are, for here it rains and rains and rains, and nobody is "
        "out but the ducks, who like it, and the one who has to feed them, who does not, and who is me, "
        "and so I am sitting here now and write to all of you, who may be dry, and may be not, but are "
        "all here, as I see");
  }
  size = strlen(c->line);
  done = write(c->socket, c->line + c->sent, size - c->sent);
  if (done < 0) {
    return errno == EAGAIN || errno == EINTR ? 0 : complain(c, "write");
  }
  c->sent += (size_t)done;
  if (c->sent == size) {
    c->sent = 0;
    ++c->said;
    c->next_at += PAUSE;
  }
  return 0;
}

static int talk(struct chatter* c) {
  while (c->heard < c->to_hear) {
    struct pollfd one = {0};
    int timeout = PATIENCE;
    int ready = 0;
    one.fd = c->socket;
    one.events = POLLIN;
    if (has_line_to_say(c)) {
      one.events |= POLLOUT;
    } else if (c->may_begin && c->said < c->to_say) {
      const long left = c->next_at - now();
      timeout = left > 0 ? (int)left : 0;
    }
    ready = poll(&one, 1, timeout);
    if (ready < 0) {
      if (errno == EINTR) {
        continue;
      }
      return complain(c, "poll");
    }
    if (ready == 0 && timeout == PATIENCE) {
      fprintf(c->out, "chat_client: nobody says anything\n");
      return -1;
    }
    if ((one.revents & (POLLIN | POLLHUP | POLLERR)) != 0 && hear(c) != 0) {
      return -1;
    }
    if ((one.revents & POLLOUT) != 0 && say(c) != 0) {
      return -1;
    }
  }
  return 0;
}

static int alphabetical(const void* left, const void* right) {
  return strcmp(*(char* const*)left, *(char* const*)right);
}

int chat_client(int argc, char** argv, FILE* out) {
  struct chatter c = {0};
  int status = 1;
  int i;
  if (argc != 5) {
    fprintf(out, "usage: chat_client PATH NAME LINES CLIENTS\n");
    return 2;
  }
  c.out = out;
  c.socket = -1;
  c.name = argv[2];
  c.to_say = atoi(argv[3]);
  c.to_hear = c.to_say * atoi(argv[4]);
  c.lines = calloc((size_t)c.to_hear + 1, sizeof(*c.lines));
  if (c.lines != NULL && connect_to(&c, argv[1]) == 0 && talk(&c) == 0) {
    qsort(c.lines, (size_t)c.heard, sizeof(*c.lines), alphabetical);
    for (i = 0; i < c.heard; ++i) {
      fprintf(out, "%s\n", c.lines[i]);
    }
    fprintf(out, "%s said %d lines and heard %d\n", c.name, c.said, c.heard);
    status = 0;
  }
  if (c.socket >= 0) {
    close(c.socket);
  }
  for (i = 0; i < c.heard; ++i) {
    free(c.lines[i]);
  }
  free(c.lines);
  return status;
}
