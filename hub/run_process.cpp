#include "run_process.hpp"

#include "hub_core.hpp"
#include "io_error.hpp"

#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/scope.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <stdexcept>
#include <system_error>

namespace annulet {

namespace {

constexpr const char* name = "run_process";

process_options completed(const process_options& what, const run_options& how) {
  if (what.input && !how.input.empty()) {
    throw std::invalid_argument("annulet: run_process: an input, and another place to read from");
  }
  process_options all = what;
  if (!all.input) {
    all.input = how.input.empty() ? child_stream::nothing() : child_stream::pipe();
  }
  all.output = what.output.value_or(child_stream::pipe());
  all.errors = what.errors.value_or(child_stream::pipe());
  return all;
}

void feed(descriptor& to, const std::string& input) {
  try {
    to.write_all(input);
  } catch (const std::system_error& e) {
    if (e.code().value() != EPIPE) {  // else it reads no more
      throw;
    }
  }
  to.close();
}

void keep(const descriptor& from, std::string& kept, std::size_t limit, bool& cut) {
  std::array<char, 16384> piece;
  while (const std::size_t count = from.read(piece)) {
    const std::size_t fits = std::min(count, limit - kept.size());
    kept.append(piece.data(), fits);
    cut = cut || fits < count;
  }
}

// While the three run the child may wait for any of them.
void talk(process& child, const run_options& how, process_result& result, deadline until) {
  scope([&](fiber_group& fibers) {
    if (child.input()) {
      fibers.spawn({.name = name}, [&] { feed(child.input(), how.input); });
    }
    if (child.output()) {
      fibers.spawn({.name = name},
                   [&] { keep(child.output(), result.output, how.output_limit, result.cut); });
    }
    if (child.errors()) {
      fibers.spawn({.name = name},
                   [&] { keep(child.errors(), result.errors, how.output_limit, result.cut); });
    }
    fibers.get(until);
  });
}

}  // namespace

process_result run_process(const process_options& what, const run_options& how, deadline until) {
  const process_options all = completed(what, how);
  const auto late = [&] {
    detail::throw_deadline_passed(name, all.command.empty() ? std::string() : all.command.front());
  };
  (void)detail::hub_core::here(name);
  if (until.reached()) {
    late();
  }
  process child(all);
  process_result result{.status = {exit_status::cause::exited, 0}};
  try {
    try {
      talk(child, how, result, until);
    } catch (const deadline_passed&) {
      late();
    }
    if (!child.has_ended(until)) {
      late();
    }
  } catch (...) {
    try {
      (void)child.terminate(how.grace);
    } catch (const std::system_error&) {
      // Somebody else has taken its status.
    }
    throw;
  }
  const shield whole;
  result.status = child.wait();
  return result;
}

}  // namespace annulet
