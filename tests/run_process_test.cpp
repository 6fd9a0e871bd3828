// Programs that are run to their end in one call, and what comes instead of it.
#include <annulet/hub/run_process.hpp>

#include "support/blocking_files.hpp"
#include "support/processes.hpp"

#include <doctest/doctest.h>

#include <cerrno>
#include <csignal>
#include <optional>
#include <string>

#include <fcntl.h>

using namespace annulet::test;
using annulet::child_stream;
using annulet::hub;
using annulet::process_result;
using annulet::run_process;
using annulet::spawn;
namespace this_fiber = annulet::this_fiber;

namespace {

annulet::process_options shell(const std::string& line) { return {.command = {"sh", "-c", line}}; }

}  // namespace

TEST_CASE("output and errors are captured, and the status is a value") {
  const hub home;
  const process_result done = run_process(shell("echo out; echo err >&2; exit 4"), {}, limit);
  CHECK(done.output == "out\n");
  CHECK(done.errors == "err\n");
  CHECK(done.status.code() == 4);
  CHECK_FALSE(done.cut);
  CHECK(run_process(shell("kill -9 $$"), {}, limit).status.signal() == SIGKILL);
  CHECK(run_process(shell("cat"), {}, limit).output.empty());  // nothing to read
}

TEST_CASE("a large input comes back whole, while all three pipes are busy") {
  const hub home;
  const std::string all = pattern(3'000'000);
  const process_result done = run_process(shell("tee /dev/stderr"), {.input = all}, limit);
  CHECK(done.output == all);
  CHECK(done.errors == all);
  CHECK(done.status.success());
}

TEST_CASE("an input that the child does not read is no error") {
  const hub home;
  const process_result done = run_process(shell("exit 2"), {.input = pattern(1'000'000)}, limit);
  CHECK(done.status.code() == 2);
  CHECK_THROWS_AS(run_process({.command = {"true"}, .input = child_stream::nothing()}, {.input = "x"}),
                  std::invalid_argument);
}

TEST_CASE("what is beyond the limit is dropped and told of, and the child does not hang on it") {
  const hub home;
  const auto zeros = shell("head -c 1000000 /dev/zero; echo err >&2");
  const process_result done = run_process(zeros, {.output_limit = 1000}, limit);
  CHECK(done.output == std::string(1000, '\0'));
  CHECK(done.errors == "err\n");
  CHECK(done.cut);
  CHECK(done.status.success());
  CHECK_FALSE(run_process(zeros, {.output_limit = 1'000'000}, limit).cut);
}

TEST_CASE("a command that does not exist is an error that names it") {
  const hub home;
  const auto failed = failure_of([] { return run_process({.command = {"no-such-program"}}); });
  CHECK(failed.error == ENOENT);
  CHECK(failed.words.find("no-such-program") != std::string::npos);
  CHECK_THROWS_AS(run_process({.command = {}}), std::invalid_argument);
  CHECK_FALSE(has_children());
}

TEST_CASE("a child that never ends is ended at the deadline, with all that it has started") {
  const hub home;
  (void)run_process(shell(":"));
  const std::size_t before = open_descriptors();
  for (const char* line : {"sleep 1000", "sleep 1000 & wait", "(sleep 1000 &) ; exit 0"}) {
    CAPTURE(line);
    const auto begin = steady::now();
    try {
      (void)run_process(shell(line), {}, 100ms);
      FAIL("it has ended");
    } catch (const annulet::deadline_passed& e) {
      CHECK(std::string(e.what()).find("run_process(sh)") != std::string::npos);
    }
    CHECK(steady::now() - begin >= 100ms);
    CHECK(steady::now() - begin < 5s);
    CHECK_FALSE(has_children());
    CHECK(open_descriptors() == before);
  }
  CHECK(passes_deadline([] { return run_process(shell("exit 1"), {}, 0s); }));
}

TEST_CASE("a child that ignores SIGTERM is ended after the grace") {
  const hub home;
  const auto begin = steady::now();
  const auto deaf = shell("trap '' TERM; while :; do sleep 1000; done");
  CHECK(passes_deadline([&] { return run_process(deaf, {.grace = 100ms}, 200ms); }));
  CHECK(steady::now() - begin >= 300ms);
  CHECK_FALSE(has_children());
}

TEST_CASE("a fiber that is killed in it, or whose guard expires, ends the child first") {
  const hub home;
  (void)run_process(shell(":"));
  const std::size_t before = open_descriptors();
  auto killed = spawn_parked([] { (void)run_process(shell("sleep 1000"), {.input = pattern(200'000)}); });
  this_fiber::sleep_for(50ms);
  killed.kill();
  REQUIRE(killed.join(limit));
  CHECK_THROWS_AS(killed.get(), annulet::fiber_failed);
  CHECK_FALSE(has_children());

  auto guarded = spawn([] {
    const annulet::timeout guard(50ms);
    try {
      (void)run_process(shell("sleep 1000"));
    } catch (const annulet::timeout_expired& e) {
      return e.is(guard);
    }
    return false;
  });
  CHECK(guarded.get());
  CHECK_FALSE(has_children());
  CHECK(open_descriptors() == before);
}

TEST_CASE("one that is killed while its child starts ends it too") {
  const hub home;
  for (int i = 0; i < 60; ++i) {
    auto killed = spawn_parked([] { (void)run_process(shell("sleep 1000")); });
    this_fiber::sleep_for(i * 20us);
    killed.kill();
    REQUIRE(killed.join(limit));
    REQUIRE_FALSE(has_children());
  }
}

TEST_CASE("a hub that ends with one under way ends the child") {
  {
    const hub home;
    spawn([] { (void)run_process(shell("sleep 1000")); }).detach();
    this_fiber::sleep_for(50ms);
    CHECK(has_children());
  }
  CHECK_FALSE(has_children());
}
