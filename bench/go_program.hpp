// A program in Go that stands beside annulet_bench and measures itself: a child process on this processor
// that is asked line by line. Its garbage collector and all else has that one processor, too.
#pragma once

#include <optional>
#include <string>

#include "child_process.hpp"

namespace bench {

class go_program {
 public:
  // The path of the program of that name. None where there was no Go when annulet_bench was built.
  static std::optional<std::string> find(const std::string& name);

  // Forks: before there is a hub or a thread.
  explicit go_program(const std::string& path);
  ~go_program();
  go_program(const go_program&) = delete;
  go_program& operator=(const go_program&) = delete;

  // Its answer, a line as well. Stops this thread until then.
  std::string ask(const std::string& line);

 private:
  struct ends {
    int ours;
    int its;
  };
  static ends make_ends();

  ends sockets_;
  child_process child_;
};

}  // namespace bench
