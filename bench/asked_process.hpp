// A process beside annulet_bench, on its processor, that is asked line by line: a program in Go that measures
// itself, or a part of annulet_bench whose memory is measured from outside.
#pragma once

#include <sys/types.h>
#include <functional>
#include <optional>
#include <string>

#include "child_process.hpp"

namespace bench {

class asked_process {
 public:
  // Forks: before there is a hub or a thread. The questions are the body's standard input, its standard
  // output is for the answers; it returns when the input ends, or executes a program that does.
  explicit asked_process(const std::function<void()>& body);
  ~asked_process();
  asked_process(const asked_process&) = delete;
  asked_process& operator=(const asked_process&) = delete;

  // Its answer, a line as well. Stops this thread until then.
  std::string ask(const std::string& line);
  pid_t id() const { return child_.id(); }

 private:
  struct ends {
    int ours;
    int its;
  };
  static ends make_ends();

  ends sockets_;
  child_process child_;
};

// For the body: the next question, none after the last.
std::optional<std::string> next_question();
void answer(const std::string& line);

// A program in Go. Its garbage collector and all else has the one processor, too.
class go_program {
 public:
  // None of that name where there was no Go when annulet_bench was built.
  static std::optional<go_program> find(const std::string& name);

  // As an asked_process's body.
  void operator()() const;

 private:
  explicit go_program(std::string path) : path_(std::move(path)) {}

  std::string path_;
};

}  // namespace bench
