// Programs in C that wait by select, poll and epoll_wait, those of libcurl's and libpq's users among them, in
// a hundred fibers of one thread. Their sources know nothing of fibers: one header is included before them
// (ported/meson.build). What each says alone, built without that header, is what it has to say here.
//
// ANNULET_PORTED_TRANSFERS says how many files each of those fetches, and ANNULET_PORTED_ROUNDS how often all
// is run.

#include "oracle/run.hpp"
#include "support/http_server.hpp"
#include "support/ported_crowd.hpp"
#include "support/postgres_server.hpp"

#include <annulet/runtime/context.hpp>
#include <annulet/runtime/sanitizer.hpp>

#include <curl/curl.h>
#include <doctest/doctest.h>
#include <libpq-fe.h>

#include <memory>

namespace {

using namespace annulet::test;
using namespace std::chrono_literals;

constexpr std::size_t instances = 100;
constexpr nanoseconds limit = 5ms;  // of slices, and how late beats are
// Where others of the machine keep the thread from running, what it has to do piles up meanwhile, and the
// beats come late whatever it does; and the network's work for them is done in its slices, too.
constexpr double most_without_a_core = 0.2;
constexpr nanoseconds limit_without = 100ms;

slice_meter slices;

}  // namespace

// Every switch of the library comes through here on its way: the linker is told so.
extern "C" annulet::detail::arrival __real_jump_fcontext(annulet::detail::context to, void* word);
extern "C" annulet::detail::arrival __wrap_jump_fcontext(annulet::detail::context to, void* word) {
  slices.end();
  return __real_jump_fcontext(to, word);
}

namespace {

// Programs that belong together, with so many times their work; `number` tells them from others of their
// kind.
using casting = std::function<std::vector<ported_program>(std::size_t number, std::size_t times)>;

std::vector<std::string> said_alone(const casting& of) {
  std::vector<std::unique_ptr<program>> running;
  for (const ported_program& each : of(instances, 1)) {
    running.push_back(
        std::make_unique<program>(built("tests/ported", each.words[0]),
                                  std::vector<std::string>(each.words.begin() + 1, each.words.end())));
  }
  std::vector<std::string> said;
  for (const auto& each : running) {
    const program_end end = each->wait();
    CHECK_MESSAGE(end.exit == 0, end.out << end.err);
    CHECK(end.err.empty());
    said.push_back(end.out);
  }
  return said;
}

groups hundred(const casting& of, std::size_t times) {
  groups all;
  for (std::size_t i = 0; i < instances; ++i) {
    all.push_back(of(i, times));
  }
  return all;
}

void tell(const std::string& what, const crowd_figures& figures) {
  const auto ms = [](nanoseconds time) { return static_cast<double>(time.count()) / 1e6; };
  const auto part = [&](nanoseconds time) { return 100 * ms(time) / ms(figures.took); };
  std::printf(
      "note: %s: %.2f s, %.0f %% busy, %.0f %% without a core; longest slice %.2f ms (fiber %llu), "
      "%.2f ms by the clock\n",
      what.c_str(), ms(figures.took) / 1e3, part(figures.cpu), part(figures.waited),
      ms(figures.longest_slice), static_cast<unsigned long long>(figures.whose_slice),
      ms(figures.longest_by_clock));
  std::printf("note: %s: beats late by %.2f ms at the median, %.2f ms at p99.9, %.2f ms at most of %zu\n",
              what.c_str(), ms(figures.late_at(0.5)), ms(figures.late_at(0.999)), ms(figures.late.back()),
              figures.late.size());
}

// Each of them, or the first that does not, says what it says alone.
void check_words(const groups& all, const std::vector<std::string>& truth) {
  for (const auto& group : all) {
    for (std::size_t i = 0; i < group.size(); ++i) {
      if (group[i].status != 0 || group[i].said != truth[i]) {
        CAPTURE(group[i].words[0]);
        CHECK(group[i].status == 0);
        CHECK(group[i].said == truth[i]);
        return;
      }
    }
  }
}

nanoseconds limit_for(const crowd_figures& figures) {
  return figures.waited < most_without_a_core * figures.took ? limit : limit_without;
}

// Slices keep to the limit in each round. Beats do in one of three: a processor that stands still while the
// thread sleeps makes them late, and no clock or sample of the thread tells of that.
void check_said(const std::string& what, const casting& of) {
  const std::vector<std::string> truth = said_alone(of);
  bool in_time = false;
  for (int round = 0; round < 3 && !in_time; ++round) {
    auto all = hundred(of, 1);
    const crowd_figures figures = run_together(all, slices);
    check_words(all, truth);
    tell(what, figures);
    in_time = figures.late_at(0.999) < limit_for(figures);
    if (slices.thread.is_sampled() && annulet::detail::built_in == annulet::detail::sanitizer::none) {
      CHECK(figures.sampled > figures.cpu / 2);
      CHECK(figures.longest_slice < limit_for(figures));
    }
  }
  if (annulet::detail::built_in == annulet::detail::sanitizer::none) {
    CHECK(in_time);  // the figures are in the notes
  }
}

// None of them would come to its end by itself.
void check_killed(const std::string& what, const casting& of) {
  const std::size_t before = open_descriptors();
  auto all = hundred(of, 100);
  run_together(all, slices, 1s);
  CHECK(open_descriptors() == before);
  std::size_t count = 0;
  std::size_t cancelled = 0;
  for (const auto& group : all) {
    for (const ported_program& each : group) {
      ++count;
      CHECK(each.status >= 0);
      cancelled += each.said.ends_with(": Operation canceled\n");
    }
  }
  std::printf("note: %s: %zu of %zu killed where they waited\n", what.c_str(), cancelled, count);
  CHECK(cancelled > count / 4);
}

void check_all(const std::string& what, const casting& of) {
  const std::uint64_t rounds = oracle::from_environment("ANNULET_PORTED_ROUNDS", 1);
  for (std::uint64_t round = 0; round < rounds; ++round) {
    check_said(what, of);
    check_killed(what, of);
  }
}

}  // namespace

TEST_CASE("libcurl on select: a hundred programs fetch files in fibers of one thread, and some when killed") {
  const http_server server(3000, cores::last);
  const auto transfers_each = oracle::from_environment("ANNULET_PORTED_TRANSFERS", 60);
  // As a program does that has several threads: it takes some milliseconds, once.
  REQUIRE(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
  // Three at a time: to begin one takes libcurl half a millisecond on some machines, and it begins all at
  // once.
  check_all("transfers", [&](std::size_t, std::size_t times) {
    return std::vector<ported_program>{
        {transfers, {"transfers", server.address(), std::to_string(transfers_each * times), "3"}}};
  });
  curl_global_cleanup();
}

TEST_CASE("libpq on poll: a hundred programs ask a server in fibers of one thread, and some when killed") {
  const postgres_server server(cores::last);
  REQUIRE(becomes_true([&] { return PQping(server.conninfo().c_str()) == PQPING_OK; }));
  check_all("queries", [&](std::size_t, std::size_t times) {
    return std::vector<ported_program>{{queries, {"queries", server.conninfo(), std::to_string(times)}}};
  });
}

TEST_CASE("a hundred chats, of a server on select and its clients on poll, in fibers of one thread") {
  const folder sockets;
  check_all("chats", [&](std::size_t number, std::size_t times) {
    const std::string path = sockets / std::to_string(number);
    std::vector<ported_program> all{{chat_server, {"chat_server", path, "4"}}};
    for (const char* const name : {"ann", "bob", "cid", "dot"}) {
      all.push_back({chat_client, {"chat_client", path, name, std::to_string(16 * times), "4"}});
    }
    return all;
  });
}

TEST_CASE("a hundred loops around epoll_wait, each a server and its clients, in fibers of one thread") {
  check_all("event loops", [&](std::size_t, std::size_t times) {
    return std::vector<ported_program>{{event_loop, {"event_loop", "3", std::to_string(24 * times)}}};
  });
}

TEST_CASE("a slice that is too long is seen") {
  const annulet::hub home;
  slices.begin();
  auto busy = annulet::spawn([] {
    nanoseconds ran{};
    for (nanoseconds now, before = thread_cpu(); ran < 12ms; before = now) {
      now = thread_cpu();
      ran += std::min<nanoseconds>(now - before, 100us);  // no more than that, for a stop is in it
    }
  });
  const std::uint64_t whose = busy.id();
  busy.join();
  CHECK(slices.longest > 10ms);
  CHECK(slices.whose == whose);
}
