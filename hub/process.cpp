#include "process.hpp"

#include "child_process.hpp"
#include "file.hpp"
#include "hub_core.hpp"
#include "io_error.hpp"
#include "process_start.hpp"

#include <annulet/runtime/cancellation.hpp>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <utility>

#include <fcntl.h>

namespace annulet {

namespace {

void check_text(const std::string& text) {
  if (text.find('\0') != std::string::npos) {
    throw std::invalid_argument("annulet: process: a zero within the text " + text);
  }
}

void check_options(const process_options& options) {
  if (options.command.empty()) {
    throw std::invalid_argument("annulet: process: no command");
  }
  std::ranges::for_each(options.command, check_text);
  if (options.environment) {
    std::ranges::for_each(*options.environment, check_text);
  }
  for (const auto& stream : {options.input, options.output}) {
    if (stream && stream->what() == child_stream::kind::output) {
      throw std::invalid_argument("annulet: process: as_output() is for the errors only");
    }
  }
}

}  // namespace

process::process(const process_options& options) {
  check_options(options);
  detail::hub_core& hub = detail::hub_core::here("process");
  const std::string& command = options.command.front();
  descriptor directory;
  if (!options.directory.empty()) {
    directory = detail::lifted(hub, open(options.directory, O_PATH | O_DIRECTORY), command);
  }
  detail::child_streams streams(options, command);
  child_ = std::make_shared<detail::child_process>(hub, options);
  const detail::started started = detail::start_process(options, streams, directory.fileno());
  if (started.error != 0) {
    detail::throw_io_error(started.error, "process", command);
  }
  child_->own(hub, started);
  input_ = streams.take_ours(0);
  output_ = streams.take_ours(1);
  errors_ = streams.take_ours(2);
}

process::~process() { drop(); }

process::process(process&& other) noexcept = default;

process& process::operator=(process&& other) noexcept {
  if (this != &other) {
    drop();
    child_ = std::move(other.child_);
    input_ = std::move(other.input_);
    output_ = std::move(other.output_);
    errors_ = std::move(other.errors_);
  }
  return *this;
}

void process::drop() noexcept {
  if (const auto child = std::move(child_)) {
    child->abandon();
  }
}

pid_t process::pid() const noexcept { return child_ == nullptr ? 0 : child_->pid(); }

exit_status process::wait(deadline until) {
  constexpr const char* call = "process::wait";
  const auto child = child_;
  if (child == nullptr) {
    detail::throw_io_error(ECHILD, call, 0);
  }
  const auto status = child->wait(until, detail::child_step::form::take, call);
  if (!status) {
    detail::throw_deadline_passed(call, child->pid());
  }
  return *status;
}

bool process::has_ended(deadline until) {
  const auto child = child_;
  return child->wait(until, detail::child_step::form::leave, "process::wait").has_value();
}

bool process::kill(int signal) {
  constexpr const char* call = "process::kill";
  if (child_ == nullptr) {
    detail::throw_io_error(ECHILD, call, 0);
  }
  return child_->kill(signal, call);
}

exit_status process::terminate(std::chrono::nanoseconds grace) {
  const shield whole;
  if (kill(SIGTERM)) {
    (void)has_ended(grace);
    (void)kill(SIGKILL);
  }
  return wait();
}

pid_t process::release() {
  if (child_ == nullptr || child_->is_over()) {
    detail::throw_io_error(ECHILD, "process::release", pid());
  }
  const auto child = std::move(child_);
  const pid_t number = child->pid();
  child->release();
  return number;
}

}  // namespace annulet
