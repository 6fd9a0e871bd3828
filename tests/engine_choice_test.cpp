// Which engine a hub gets where nothing is refused: by its options, by the environment, by default. Each case
// runs in a child process, for it changes the environment. What is refused is in engine_refused_test.cpp.
#include "support/child.hpp"
#include "support/files.hpp"
#include "support/probe_watch.hpp"
#include "support/whole_hub.hpp"

#include <annulet/hub/hub.hpp>

#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

using namespace annulet;
using namespace annulet::test;
using annulet_test::in_child;

namespace {

// What the environment says; null: nothing.
void set_environment(const char* engine, const char* mode = nullptr) {
  ::unsetenv("ANNULET_ENGINE");
  ::unsetenv("ANNULET_RING_MODE");
  if (engine != nullptr) {
    ::setenv("ANNULET_ENGINE", engine, 1);
  }
  if (mode != nullptr) {
    ::setenv("ANNULET_RING_MODE", mode, 1);
  }
}

hub_options options_for(engine_choice engine) {
  hub_options options;
  options.engine = engine;
  return options;
}

// In the child: whether such a hub is on that engine, with nothing refused, and works.
bool serves(const hub_options& options, const std::string& name) {
  hub home(options);
  const engine_info& report = home.engine_report();
  std::fprintf(stderr, "%s\n", report.name.c_str());
  return report.name == name && report.refused.empty() && everything_works(home);
}

// In the child: what the hub says that refuses these options as invalid, which goes to stderr. It must leave
// no descriptor behind.
bool invalid(const hub_options& options) {
  const std::size_t before = open_descriptors();
  try {
    hub home(options);
  } catch (const std::invalid_argument& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return open_descriptors() == before;
  }
  std::fprintf(stderr, "the hub was made\n");
  return false;
}

constexpr std::array all_choices = {engine_choice::automatic, engine_choice::uring, engine_choice::epoll};

}  // namespace

TEST_CASE("by default a hub is on io_uring") {
  if (!has_io_uring()) {
    return;
  }
  const auto end = in_child([] {
    set_environment(nullptr);
    return serves({}, "io_uring");
  });
  CHECK_MESSAGE(end.exit == 0, end.said);
}

TEST_CASE("the options name the engine, and so does the environment where they do not") {
  if (!has_io_uring()) {
    return;
  }
  const auto end = in_child([] {
    set_environment(nullptr);
    bool good = serves(options_for(engine_choice::uring), "io_uring") &&
                serves(options_for(engine_choice::epoll), "epoll");
    set_environment("epoll");
    good = good && serves({}, "epoll") && serves(options_for(engine_choice::uring), "io_uring");
    set_environment("uring");
    return good && serves({}, "io_uring") && serves(options_for(engine_choice::epoll), "epoll");
  });
  CHECK_MESSAGE(end.exit == 0, end.said);
}

TEST_CASE("a report tells the flags, the features of the kernel and the queues of the engine that serves") {
  if (!has_io_uring()) {
    return;
  }
  const auto end = in_child([] {
    set_environment(nullptr);
    bool good = false;
    {
      hub home;
      const engine_info& report = home.engine_report();
      good = !report.features.empty() && report.sq_entries == 256 && report.cq_entries == 4096;
    }
    hub home(options_for(engine_choice::epoll));
    const engine_info& report = home.engine_report();
    return good && report.flags.empty() && !report.features.empty() && report.sq_entries == 0;
  });
  CHECK_MESSAGE(end.exit == 0, end.said);
}

TEST_CASE(
    "the environment names the step of the ring to begin with, where the options leave it at the default") {
  if (!has_io_uring()) {
    return;
  }
  using names = std::vector<std::string>;
  const auto end = in_child([] {
    const auto flags = [](const char* variable, ring_mode mode) {
      set_environment("uring", variable);
      hub home(test::options_for(mode));
      return home.engine_report().flags;
    };
    constexpr ring_mode by_default = ring_mode::defer_taskrun;
    return flags("plain", by_default).empty() && flags("submit_all", by_default) == names{"SUBMIT_ALL"} &&
           flags("coop_taskrun", by_default).front() == "COOP_TASKRUN" &&
           flags("defer_taskrun", by_default).front() == "SINGLE_ISSUER" &&
           flags("plain", ring_mode::coop_taskrun).front() == "COOP_TASKRUN";
  });
  CHECK_MESSAGE(end.exit == 0, end.said);
}

TEST_CASE("an engine that does not exist is refused, and the message names those that do") {
  for (const char* const unknown : {"io_uring", "EPOLL", "", "epoll "}) {
    const auto end = in_child([unknown] {
      set_environment(unknown);
      return invalid({});
    });
    CHECK_MESSAGE(end.exit == 0, end.said);
    CHECK(end.says("ANNULET_ENGINE is \"" + std::string(unknown) + "\""));
    CHECK(end.says("uring, epoll"));
  }
  const auto end = in_child([] {
    set_environment(nullptr);
    return invalid(options_for(static_cast<engine_choice>(3))) &&
           invalid(options_for(static_cast<engine_choice>(-1)));
  });
  CHECK_MESSAGE(end.exit == 0, end.said);
  CHECK(end.says("hub_options::engine"));
}

TEST_CASE("where the options name the engine the environment's word for it is not read") {
  const auto end = in_child([] {
    set_environment("nonsense");
    return serves(options_for(engine_choice::epoll), "epoll");
  });
  CHECK_MESSAGE(end.exit == 0, end.said);
}

TEST_CASE("a ring mode that does not exist is refused, also where no ring is asked for") {
  for (const engine_choice engine : all_choices) {
    CAPTURE(static_cast<int>(engine));
    const auto by_variable = in_child([engine] {
      set_environment(nullptr, "sqpoll");
      return invalid(options_for(engine));
    });
    CHECK_MESSAGE(by_variable.exit == 0, by_variable.said);
    CHECK(by_variable.says("ANNULET_RING_MODE is \"sqpoll\""));
    CHECK(by_variable.says("defer_taskrun, coop_taskrun, submit_all, plain"));
    const auto by_option = in_child([engine] {
      set_environment(nullptr);
      hub_options options = options_for(engine);
      options.mode = static_cast<ring_mode>(4);
      return invalid(options);
    });
    CHECK_MESSAGE(by_option.exit == 0, by_option.said);
    CHECK(by_option.says("hub_options::mode"));
  }
}

TEST_CASE("queues of no entry, and beyond what the kernel has, are refused whichever engine is chosen") {
  for (const engine_choice engine : all_choices) {
    CAPTURE(static_cast<int>(engine));
    const auto end = in_child([engine] {
      set_environment(nullptr);
      bool good = true;
      for (const auto& [sq, cq] : {std::pair{0U, 4096U},
                                   {32769U, 65536U},
                                   {~0U, 65536U},
                                   {256U, 0U},
                                   {256U, 511U},
                                   {256U, 65537U}}) {
        hub_options options = options_for(engine);
        options.sq_entries = sq;
        options.cq_entries = cq;
        good = good && invalid(options);
      }
      return good;
    });
    CHECK_MESSAGE(end.exit == 0, end.said);
    CHECK(end.says("sq_entries is 0"));
    CHECK(end.says("cq_entries is 65537"));
  }
}
