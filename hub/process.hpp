// Programs as child processes: started, fed, waited for and ended without stopping the thread, and without
// SIGCHLD.
//
//   annulet::process sort({.command = {"sort", "-n"},
//                          .input = annulet::child_stream::pipe(),
//                          .output = annulet::child_stream::pipe()});
//   sort.input().write_all(numbers);
//   sort.input().close();
//   ... sort.output().read(buffer) ...
//   if (!sort.wait().success()) ...
//
// run_process.hpp does all that in one call.
//
// The child has the three streams that it is given, and no other descriptor of this process, whatever its
// flags; no blocked signal, and the default for SIGPIPE, SIGXFSZ and SIGCHLD, as a program expects. It leads
// a process group of its own, unless told otherwise: signals sent here reach what it has started as well, and
// those from a terminal's keyboard do not reach it.
//
// Whoever waits for just any child of the process (waitpid(-1)), or ignores SIGCHLD, takes the statuses from
// here: then wait() says ECHILD, and so does run_process. For the hub's thread. In a forked child they are
// the parent's: calls on them say so, and to destroy them there ends nobody. Linux 5.4.
#pragma once

#include "child.hpp"
#include "descriptor.hpp"

#include <annulet/runtime/deadline.hpp>

#include <chrono>
#include <csignal>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

namespace [[gnu::visibility("default")]] annulet {

struct run_options;
struct process_result;
struct process_options;
process_result run_process(const process_options& what, const run_options& how, deadline until);

// What a child has for its standard input, output or errors.
class child_stream {
 public:
  enum class kind { inherited, nothing, pipe, file, output };

  // This process's; none where that is closed, or close-on-exec, as with exec(2).
  [[nodiscard]] static child_stream inherited() noexcept { return {kind::inherited, -1}; }
  // /dev/null.
  [[nodiscard]] static child_stream nothing() noexcept { return {kind::nothing, -1}; }
  // A new pipe, the other end of which is the process object's.
  [[nodiscard]] static child_stream pipe() noexcept { return {kind::pipe, -1}; }
  // An open file, which stays the caller's. It has to be open when the child is started.
  [[nodiscard]] static child_stream of(file_ref file) noexcept { return {kind::file, file.number()}; }
  // For errors only: wherever the output goes.
  [[nodiscard]] static child_stream as_output() noexcept { return {kind::output, -1}; }

  [[nodiscard]] kind what() const noexcept { return kind_; }
  [[nodiscard]] int number() const noexcept { return number_; }

 private:
  child_stream(kind what, int number) noexcept : kind_(what), number_(number) {}

  kind kind_;
  int number_;
};

enum class child_group { own, ours };

struct process_options {
  // The program and its arguments. One without a slash is looked for along this process's PATH.
  std::vector<std::string> command;
  // "NAME=value"; this process's where none is given.
  std::optional<std::vector<std::string>> environment = std::nullopt;
  // Where it starts; empty for this process's. A command with a slash is looked for from there.
  std::string directory = {};
  // Where nothing is said a process inherits, and run_process captures.
  std::optional<child_stream> input = std::nullopt;
  std::optional<child_stream> output = std::nullopt;
  std::optional<child_stream> errors = std::nullopt;
  child_group group = child_group::own;
};

namespace detail {
class child_process;
}  // namespace detail

class process {
 public:
  // Owns nothing: wait() says ECHILD.
  process() noexcept = default;
  // Parks until the program runs, on a thread of the pool, for to load it may take long; nothing interrupts
  // that. Throws std::system_error that names the command: ENOENT where there is none, EACCES, ENOEXEC,
  // EAGAIN; one that names the directory where that is what is missing; EMFILE; std::invalid_argument for no
  // command, and for a zero in a text. Then there is no child.
  explicit process(const process_options& options);
  // One that was not waited for is ended with SIGKILL, its group likewise, and a thread of the pool takes its
  // status; nobody waits for that but the hub's end. (Where no thread or descriptor is to be had, or the hub
  // has ended, this thread waits. One that may not be killed, as set-user-ID programs, is left alone.) On a
  // foreign thread, while the hub lives, it ends the process with a message.
  ~process();
  process(process&& other) noexcept;
  process& operator=(process&& other) noexcept;

  // 0 where it owns nothing.
  [[nodiscard]] pid_t pid() const noexcept;
  // The other ends of its pipes; empty where there is none. Close the input for the child to see its end.
  [[nodiscard]] descriptor& input() noexcept { return input_; }
  [[nodiscard]] descriptor& output() noexcept { return output_; }
  [[nodiscard]] descriptor& errors() noexcept { return errors_; }

  // Parks until it has ended, and takes its status, which is kept for further calls. Any number of fibers may
  // wait. A child that writes to a pipe that nobody reads does not end. Throws as wait_child does.
  exit_status wait(deadline until = deadline::never());
  // Sends a signal to its group, where it leads one, or to it. False where its status has been taken: then
  // nobody is sent anything. Throws std::system_error: EPERM, EINVAL. Does not park.
  bool kill(int signal = SIGKILL);
  // SIGTERM; and SIGKILL when it has ended, for what is left of its group, or when the grace is over. Takes
  // its status. Parks, and nothing interrupts it.
  exit_status terminate(std::chrono::nanoseconds grace);
  // Gives it up, running or not, and returns its number: wait_child it, or it becomes a zombie. The pipes
  // stay. Throws ECHILD where there is none, or its status was taken.
  [[nodiscard]] pid_t release();

 private:
  friend process_result run_process(const process_options& what, const run_options& how, deadline until);

  // Whether it has ended by then; its status is not taken, so that its number is nobody else's.
  bool has_ended(deadline until);
  void drop() noexcept;

  std::shared_ptr<detail::child_process> child_;  // a wait holds it too
  descriptor input_;
  descriptor output_;
  descriptor errors_;
};

}  // namespace annulet
