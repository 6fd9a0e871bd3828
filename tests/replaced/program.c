/* Plain code, run in fibers. It prints "ok", or the line that found something wrong; with the name of a call
 * as its argument that call is to overrun its array. */
#define _GNU_SOURCE
#include <annulet/hub/c.h>

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHECK(what)    \
  do {                 \
    if (!(what)) {     \
      return __LINE__; \
    }                  \
  } while (0)

struct file {
  int fd;
  ssize_t (*read)(struct file* file, char* into, size_t size);
  int (*close)(struct file* file);
};

static ssize_t read_file(struct file* file, char* into, size_t size) { return read(file->fd, into, size); }
static int close_file(struct file* file) { return close(file->fd); }

static int ends[2];
static int ticks = 0;
static int ticking = 1;

static void tick(void* nothing) {
  (void)nothing;
  while (ticking) {
    ++ticks;
    usleep(1000);
  }
}

static void write_later(void* text) {
  usleep(10000);
  if (write(ends[1], text, strlen((const char*)text)) < 0) {
    perror("write");
  }
}

/* The sockets block, so of these waits none would end but by another fiber. */
static int wait_for_others(size_t size) {
  struct file file = {ends[0], read_file, close_file};
  ssize_t (*const through)(int, void*, size_t) = read;
  struct pollfd one = {ends[0], POLLIN, 0};
  char into[8];
  int before = ticks;
  CHECK(poll(&one, (nfds_t)size / 8, 30) == 0);
  CHECK(ticks > before);
  annulet_spawn(write_later, "a", NULL);
  before = ticks;
  CHECK(poll(&one, 1, -1) == 1 && ticks > before);
  CHECK(file.read(&file, into, 1) == 1 && into[0] == 'a');
  annulet_spawn(write_later, "by pointer", NULL);
  CHECK(through(ends[0], into, 3) == 3 && memcmp(into, "by ", 3) == 0);
  CHECK(read(ends[0], into, size - 1) == 7 && memcmp(into, "pointer", 7) == 0);
  annulet_spawn(write_later, "recv", NULL);
  CHECK(recv(ends[0], into, size, 0) == 4 && memcmp(into, "recv", 4) == 0);
  annulet_spawn(write_later, "from", NULL);
  CHECK(recvfrom(ends[0], into, size, 0, NULL, NULL) == 4 && memcmp(into, "from", 4) == 0);
  annulet_spawn(write_later, "last", NULL);
  CHECK(ppoll(&one, (nfds_t)size / 8, NULL, NULL) == 1 && one.revents == POLLIN);
  CHECK(file.close(&file) == 0 && read(ends[0], into, 1) == -1);
  return 0;
}

static int overrun(const char* call, size_t size) {
  struct pollfd fds[1] = {{ends[0], 0, 0}};
  char into[8];
  const struct timespec none = {0, 0};
  ssize_t result = 0;
  if (strcmp(call, "poll") == 0) {
    result = poll(fds, (nfds_t)size, 0);
  } else if (strcmp(call, "ppoll") == 0) {
    result = ppoll(fds, (nfds_t)size, &none, NULL);
  } else if (strcmp(call, "read") == 0) {
    result = read(ends[0], into, size);
  } else if (strcmp(call, "recv") == 0) {
    result = recv(ends[0], into, size, MSG_DONTWAIT);
  } else if (strcmp(call, "recvfrom") == 0) {
    result = recvfrom(ends[0], into, size, MSG_DONTWAIT, NULL, NULL);
  }
  return (int)result;
}

int main(int argc, char** argv) {
  int line;
  alarm(20);
  if (annulet_enter() != 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) {
    return 1;
  }
  if (argc > 2) {
    return overrun(argv[1], strtoul(argv[2], NULL, 10));
  }
  annulet_spawn(tick, NULL, NULL);
  line = wait_for_others((size_t)argc + 7);
  ticking = 0;
  if (line != 0) {
    printf("line %d\n", line);
  } else {
    puts("ok");
  }
  return annulet_leave();
}
