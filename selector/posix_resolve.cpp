// getaddrinfo. It reads files and asks servers as it likes, so a thread of the hub's pool makes the call, and
// the fiber parks meanwhile.

#include "drop_in.hpp"
#include "posix.h"

#include <annulet/hub/offload.hpp>

#include <memory>
#include <string>
#include <system_error>

#include <netdb.h>

namespace annulet::detail {

namespace {

// What is asked, and the answer. Holds all of it, for it may go on when nobody waits for it any more.
class resolution final : public offloaded {
 public:
  resolution(const char* node, const char* service, const addrinfo* hints)
      : node_(copy_of(node)), service_(copy_of(service)) {
    if (hints != nullptr) {
      hints_ = *hints;
    }
  }
  ~resolution() override {
    if (found_ != nullptr) {
      ::freeaddrinfo(found_);
    }
  }

  void run() noexcept override {
    result_ = ::getaddrinfo(text(node_), text(service_), hints_ ? &*hints_ : nullptr, &found_);
    error_ = errno;
  }
  [[nodiscard]] std::exception_ptr error() const noexcept override { return nullptr; }

  int tell(addrinfo** found) noexcept {
    if (result_ == 0) {
      *found = std::exchange(found_, nullptr);
    } else if (result_ == EAI_SYSTEM) {
      errno = error_;
    }
    return result_;
  }

 private:
  using copied_text = std::optional<std::string>;
  static copied_text copy_of(const char* given) {
    return given == nullptr ? std::nullopt : copied_text(given);
  }
  static const char* text(const copied_text& kept) noexcept { return kept ? kept->c_str() : nullptr; }

  const copied_text node_;
  const copied_text service_;
  std::optional<addrinfo> hints_;
  addrinfo* found_ = nullptr;
  int result_ = 0;
  int error_ = 0;
};

}  // namespace

}  // namespace annulet::detail

using namespace annulet::detail;

int annulet_getaddrinfo(const char* node, const char* service, const addrinfo* hints, addrinfo** found) {
  hub_core* const hub = hub_core::of_caller();
  if (hub == nullptr) {
    return ::getaddrinfo(node, service, hints, found);
  }
  if (hub->is_in_handler()) {
    const hub_core::away here;  // or libannulet-posix's would come back
    return ::getaddrinfo(node, service, hints, found);
  }
  try {
    const auto done = run_offloaded_or_tell(std::make_unique<resolution>(node, service, hints));
    if (done == nullptr) {
      errno = ECANCELED;
      return EAI_SYSTEM;
    }
    return static_cast<resolution&>(*done).tell(found);
  } catch (const std::bad_alloc&) {
    return EAI_MEMORY;
  } catch (const std::system_error&) {
    return EAI_AGAIN;  // no thread is to be had
  }
}
