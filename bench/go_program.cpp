#include "go_program.hpp"

#include <sys/socket.h>
#include <unistd.h>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "harness.hpp"

namespace bench {

std::optional<std::string> go_program::find(const std::string& name) {
  const auto path = std::filesystem::read_symlink("/proc/self/exe").parent_path() / name;
  return std::filesystem::exists(path) ? std::optional(path.string()) : std::nullopt;
}

go_program::ends go_program::make_ends() {
  int made[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, made) != 0) {
    fail("socketpair: %s", std::strerror(errno));
  }
  return {made[0], made[1]};
}

go_program::go_program(const std::string& path)
    : sockets_(make_ends()), child_(usable_processors().own, [&] {
        dup2(sockets_.its, STDIN_FILENO);
        dup2(sockets_.its, STDOUT_FILENO);
        setenv("GOMAXPROCS", "1", 1);
        execl(path.c_str(), path.c_str(), nullptr);
        fail("%s: %s", path.c_str(), std::strerror(errno));
      }) {
  ::close(sockets_.its);
}

// It ends when it has read all there is.
go_program::~go_program() {
  child_.expect_end();
  ::close(sockets_.ours);
}

std::string go_program::ask(const std::string& line) {
  const std::string question = line + "\n";
  if (::write(sockets_.ours, question.data(), question.size()) != static_cast<ssize_t>(question.size())) {
    fail("a question to a program in Go: %s", std::strerror(errno));
  }
  std::string answer;
  for (char one = 0; ::read(sockets_.ours, &one, 1) == 1;) {
    if (one == '\n') {
      return answer;
    }
    answer += one;
  }
  fail("a program in Go ended without an answer");
}

}  // namespace bench
