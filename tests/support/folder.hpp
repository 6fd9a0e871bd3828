// A folder of a test's own, which goes with all that is in it.
#pragma once

#include "files.hpp"

#include <cstdlib>
#include <filesystem>
#include <string>

namespace annulet::test {

class folder {
 public:
  folder() : path_((std::filesystem::temp_directory_path() / "annulet-test.XXXXXX").string()) {
    require_ok(::mkdtemp(path_.data()) == nullptr ? -1 : 0, "mkdtemp");
  }
  ~folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  folder(const folder&) = delete;
  folder& operator=(const folder&) = delete;

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace annulet::test
