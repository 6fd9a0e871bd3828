// As program.c, with methods that have the names.
#include <annulet/hub/c.h>

#include <cstdio>
#include <cstring>

#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

namespace {

class line {
 public:
  explicit line(int fd) : fd_(fd) {}
  ~line() { close(); }

  // Whether something can be read within so long.
  bool select(long microseconds) const {
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fd_, &set);
    timeval limit{0, microseconds};
    return ::select(fd_ + 1, &set, nullptr, nullptr, &limit) == 1;
  }
  bool read(const char* expected) {
    char into[16];
    const auto got = ::read(fd_, into, std::strlen(expected));
    return got == static_cast<ssize_t>(std::strlen(expected)) &&
           std::memcmp(into, expected, std::strlen(expected)) == 0;
  }
  void close() {
    if (fd_ >= 0) {
      ::close(fd_);
    }
    fd_ = -1;
  }

 private:
  int fd_;
};

int ends[2];
int ticks = 0;
bool ticking = true;

void tick(void*) {
  while (ticking) {
    ++ticks;
    ::usleep(1000);
  }
}

void send_later(void* text) {
  ::usleep(10'000);
  if (::send(ends[1], text, std::strlen(static_cast<char*>(text)), 0) < 0) {
    std::perror("send");
  }
}

// The line of what is wrong. The sockets block, so of these waits none would end but by another fiber.
int wait_for_others() {
  line from(ends[0]);
  char text[] = "hello";
  int before = ticks;
  if (from.select(30'000) || ticks <= before) {
    return __LINE__;
  }
  annulet_spawn(send_later, text, nullptr);
  before = ticks;
  if (!from.read("hello") || ticks <= before) {
    return __LINE__;
  }
  annulet_spawn(send_later, text, nullptr);
  ssize_t (*const through)(int, void*, std::size_t) = &::read;
  char byte = 0;
  if (through(ends[0], &byte, 1) != 1 || byte != 'h' || !from.select(0) || !from.read("ello")) {
    return __LINE__;
  }
  from.close();
  return ::read(ends[0], &byte, 1) == -1 ? 0 : __LINE__;
}

}  // namespace

int main() {
  ::alarm(20);
  if (annulet_enter() != 0 || ::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) {
    return 1;
  }
  annulet_spawn(tick, nullptr, nullptr);
  if (const int wrong = wait_for_others(); wrong != 0) {
    std::printf("line %d\n", wrong);
  } else {
    std::puts("ok");
  }
  ticking = false;
  return annulet_leave();
}
