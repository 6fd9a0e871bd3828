#include "process_start.hpp"

#include "child_step.hpp"
#include "hub_core.hpp"
#include "io_error.hpp"
#include "offload.hpp"
#include "syscalls.hpp"

#include <annulet/runtime/cancellation.hpp>

#include <cerrno>
#include <csignal>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

namespace annulet::detail {

namespace {

constexpr int first_other = 3;  // behind the three streams

descriptor lifted_copy(hub_core& hub, int fd, const std::string& command) {
  const io_result copy = kernel(SYS_fcntl, fd, F_DUPFD_CLOEXEC, first_other);
  if (!copy.ok()) {
    throw_io_error(copy.error(), "process", command);
  }
  return adopt_new(hub, static_cast<int>(copy.value()), file_kind::other);
}

// Ours does not block, which the other end does not notice: each has flags of its own.
void make_pipe(hub_core& hub, child_streams::end& at, bool child_reads, const std::string& command) {
  std::array<int, 2> ends{};
  if (const io_result made = kernel(SYS_pipe2, ends.data(), O_CLOEXEC); !made.ok()) {
    throw_io_error(made.error(), "process", command);
  }
  descriptor reader;
  try {
    reader = adopt_new(hub, ends[0], file_kind::other);
  } catch (...) {
    (void)kernel(SYS_close, ends[1]);
    throw;
  }
  descriptor writer = adopt_new(hub, ends[1], file_kind::other);
  at.ours = std::move(child_reads ? writer : reader);
  (void)kernel(SYS_fcntl, at.ours.fileno(), F_SETFL, O_NONBLOCK);
  at.given = lifted(hub, std::move(child_reads ? reader : writer), command);
}

std::vector<char*> pointers_to(const std::vector<std::string>& texts) {
  std::vector<char*> all;
  all.reserve(texts.size() + 1);
  for (const std::string& text : texts) {
    all.push_back(const_cast<char*>(text.c_str()));
  }
  all.push_back(nullptr);
  return all;
}

// What this process has now: others may change it while a thread starts the child.
std::vector<std::string> our_environment() {
  std::vector<std::string> all;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    all.emplace_back(*entry);
  }
  return all;
}

// posix_spawn's two bundles, and the first error in making them.
class spawn_settings {
 public:
  spawn_settings() {
    note(posix_spawn_file_actions_init(&actions_));
    note(posix_spawnattr_init(&attributes_));
  }
  ~spawn_settings() {
    posix_spawnattr_destroy(&attributes_);
    posix_spawn_file_actions_destroy(&actions_);
  }
  spawn_settings(const spawn_settings&) = delete;
  spawn_settings& operator=(const spawn_settings&) = delete;

  // What is close-on-exec is nobody's to inherit, though it has a stream's number: where this process has
  // closed its own, these go to what it opens next, a hub's ring among it.
  void add_stream(int number, const child_streams& all) {
    const child_streams::end& from = all[static_cast<std::size_t>(number)];
    switch (from.what) {
      case child_stream::kind::inherited:
        break;
      case child_stream::kind::nothing:
        note(posix_spawn_file_actions_addopen(&actions_, number, "/dev/null", O_RDWR, 0));
        break;
      case child_stream::kind::pipe:
      case child_stream::kind::file:
        note(posix_spawn_file_actions_adddup2(&actions_, from.given.fileno(), number));
        break;
      case child_stream::kind::output:
        note(all[STDOUT_FILENO].what != child_stream::kind::inherited || is_inherited(STDOUT_FILENO)
                 ? posix_spawn_file_actions_adddup2(&actions_, STDOUT_FILENO, number)
                 : posix_spawn_file_actions_addclose(&actions_, number));
        break;
    }
  }
  // After the streams.
  void add_rest(int directory, child_group group) {
    if (directory >= 0) {
      note(posix_spawn_file_actions_addfchdir_np(&actions_, directory));
    }
    note(posix_spawn_file_actions_addclosefrom_np(&actions_, first_other));
    sigset_t none;
    sigset_t defaults;
    sigemptyset(&none);
    sigemptyset(&defaults);
    for (const int number : {SIGPIPE, SIGXFSZ, SIGCHLD}) {
      sigaddset(&defaults, number);
    }
    note(posix_spawnattr_setsigmask(&attributes_, &none));
    note(posix_spawnattr_setsigdefault(&attributes_, &defaults));
    note(posix_spawnattr_setpgroup(&attributes_, 0));
    const int of_group = group == child_group::own ? POSIX_SPAWN_SETPGROUP : 0;
    note(posix_spawnattr_setflags(
        &attributes_, static_cast<short>(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | of_group)));
  }

  // The thread stops until the program has been loaded, or was not.
  [[nodiscard]] started start(char* const* command, char* const* environment) noexcept {
    started made{.error = error_};
    if (made.error == 0) {
      made.error = ::posix_spawnp(&made.pid, command[0], &actions_, &attributes_, command, environment);
    }
    if (made.error != 0) {
      return made;
    }
    const io_result opened = open_pidfd(made.pid);
    if (opened.error() == ESRCH) {
      return made;  // it has ended, and somebody has taken its status
    }
    if (!opened.ok()) {
      discard_child(made.pid);
      return {.error = opened.error()};
    }
    made.pidfd = static_cast<int>(opened.value());
    return made;
  }

 private:
  [[nodiscard]] static bool is_inherited(int number) noexcept {
    const io_result flags = kernel(SYS_fcntl, number, F_GETFD);
    return flags.ok() && (flags.value() & FD_CLOEXEC) == 0;
  }
  void note(int error) noexcept { error_ = error_ == 0 ? error : error_; }

  posix_spawn_file_actions_t actions_{};
  posix_spawnattr_t attributes_{};
  int error_ = 0;
};

}  // namespace

child_streams::child_streams(const process_options& options, const std::string& command) {
  hub_core& hub = hub_core::here("process");
  const std::array asked = {&options.input, &options.output, &options.errors};
  for (std::size_t number = 0; number < asked.size(); ++number) {
    const child_stream stream = asked[number]->value_or(child_stream::inherited());
    end& at = ends_[number];
    at.what = stream.what();
    if (at.what == child_stream::kind::pipe) {
      make_pipe(hub, at, number == STDIN_FILENO, command);
    } else if (at.what == child_stream::kind::file) {
      at.given = lifted_copy(hub, stream.number(), command);
    }
  }
}

started start_process(const process_options& options, const child_streams& streams, int directory) {
  const std::vector<std::string> environment = options.environment ? *options.environment : our_environment();
  const std::vector<char*> command = pointers_to(options.command);
  const std::vector<char*> variables = pointers_to(environment);
  spawn_settings settings;
  for (int number = 0; number < first_other; ++number) {
    settings.add_stream(number, streams);
  }
  settings.add_rest(directory, options.group);
  const shield whole;  // what is lent to the thread stays, and a child that was started is heard of
  try {
    return offload([&] { return settings.start(command.data(), variables.data()); });
  } catch (const std::system_error& e) {  // no thread is to be had
    throw_io_error(e.code().value(), "process", options.command.front());
  }
}

descriptor lifted(hub_core& hub, descriptor file, const std::string& command) {
  return file.fileno() < first_other ? lifted_copy(hub, file.fileno(), command) : std::move(file);
}

// Where somebody else has taken its status its number may be another's.
void discard_child(pid_t pid) noexcept {
  if (kernel(SYS_waitid, P_PID, pid, nullptr, WEXITED | WNOHANG | WNOWAIT, nullptr).ok()) {
    (void)kernel(SYS_kill, pid, SIGKILL);
    (void)uninterrupted([pid] { return kernel(SYS_waitid, P_PID, pid, nullptr, WEXITED, nullptr); });
  }
}

}  // namespace annulet::detail
