// What the tests of the fd calls share: files as plain numbers and as annulet's descriptors, blocking ones of
// every kind, and what a call has thrown.
#pragma once

#include "selecting.hpp"
#include "texts.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/hub/io.hpp>
#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/fiber.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <termios.h>

namespace annulet::test {

using namespace std::chrono_literals;
using namespace std::string_view_literals;

// How a call is given its file. What holds for one holds for the other.
enum class form { number, owner };
inline constexpr std::array both_forms = {form::number, form::owner};

// A file that is used in one of the two ways. Needs a hub.
class subject {
 public:
  subject(descriptor file, form way) {
    if (way == form::owner) {
      owner_ = annulet::descriptor::adopt(file.get());
      file.release();
    } else {
      plain_ = std::move(file);
    }
  }

  [[nodiscard]] int fileno() const noexcept { return owner_ ? owner_.fileno() : plain_.get(); }
  operator file_ref() const noexcept { return owner_ ? file_ref(owner_) : file_ref(plain_.get()); }
  // Through the hub.
  void close() {
    if (owner_) {
      owner_.close();
    } else {
      annulet::close(plain_.release());
    }
  }

 private:
  annulet::descriptor owner_;
  descriptor plain_;
};

template <class Body>
void in_both_forms(Body&& body) {
  for (const form way : both_forms) {
    CAPTURE(static_cast<int>(way));
    hub home;
    body(way);
  }
}

inline annulet::descriptor adopt(descriptor file) {
  auto owner = annulet::descriptor::adopt(file.get());
  file.release();
  return owner;
}

// What a call threw; 0 where it threw nothing.
struct failure {
  int error = 0;
  std::string words;

  [[nodiscard]] bool names(std::string_view call, int fd) const {
    return words.find(std::string(call) + "(" + std::to_string(fd) + ")") != std::string::npos;
  }
};

template <class Call>
failure failure_of(Call&& call) {
  try {
    (void)call();
  } catch (const std::system_error& e) {
    return {e.code().value(), e.what()};
  }
  return {};
}

template <class Call>
bool passes_deadline(Call&& call) {
  try {
    (void)call();
  } catch (const deadline_passed& e) {
    return e.code() == std::errc::timed_out;
  }
  return false;
}

template <class Call>
bool is_killed_in(Call&& call) {
  try {
    (void)call();
  } catch (const fiber_killed&) {
    return true;
  }
  return false;
}

inline std::string read_some(file_ref file, deadline until = deadline::never(), std::size_t most = 4096) {
  std::string text(most, '\0');
  text.resize(annulet::read(file, text, until));
  return text;
}

// Bytes that are told apart from those of another place, and of another seed.
inline std::string pattern(std::size_t size, unsigned seed = 1) {
  std::string bytes(size, '\0');
  auto state = static_cast<std::uint32_t>(seed);
  for (char& byte : bytes) {
    state = state * 1664525U + 1013904223U;
    byte = static_cast<char>(state >> 24U);
  }
  return bytes;
}

// --- blocking files

inline int flags_of(int fd) { return require_ok(::fcntl(fd, F_GETFL), "fcntl F_GETFL"); }

inline socket_pair blocking(socket_pair pair) {
  for (const int fd : {pair.first.get(), pair.second.get()}) {
    require_ok(::fcntl(fd, F_SETFL, flags_of(fd) & ~O_NONBLOCK), "fcntl F_SETFL");
  }
  return pair;
}

inline pipe_pair make_blocking_pipe() { return make_pipe(O_CLOEXEC); }

struct pty_pair {
  descriptor master;
  descriptor slave;
};

// Blocking, and raw: bytes go through as they are.
inline pty_pair make_pty() {
  descriptor master(require_ok(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), "posix_openpt"));
  require_ok(::grantpt(master.get()), "grantpt");
  require_ok(::unlockpt(master.get()), "unlockpt");
  std::array<char, 64> name{};
  if (::ptsname_r(master.get(), name.data(), name.size()) != 0) {
    throw std::runtime_error("ptsname_r");
  }
  descriptor slave(require_ok(::open(name.data(), O_RDWR | O_NOCTTY | O_CLOEXEC), "open of a pty"));
  termios modes{};
  require_ok(::tcgetattr(slave.get(), &modes), "tcgetattr");
  ::cfmakeraw(&modes);
  require_ok(::tcsetattr(slave.get(), TCSANOW, &modes), "tcsetattr");
  return {std::move(master), std::move(slave)};
}

// A regular file without a name.
inline descriptor make_file(std::string_view contents = {}) {
  const auto folder = std::filesystem::temp_directory_path();
  descriptor file(require_ok(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), "open O_TMPFILE"));
  if (!contents.empty()) {
    write_text(file.get(), contents);
    require_ok(static_cast<int>(::lseek(file.get(), 0, SEEK_SET)), "lseek");
  }
  return file;
}

// A number that is not open.
inline int unused_number() { return make_eventfd().get(); }

}  // namespace annulet::test
