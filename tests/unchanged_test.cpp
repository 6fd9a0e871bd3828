// Libraries that nobody changed, in fibers: libpq, libcurl and hiredis wait as they are, and find
// libannulet-posix before libc.
//
// ANNULET_UNCHANGED_ALONE=1 measures the same calls without it, one after the other, which takes five
// minutes.

#include "support/postgres_server.hpp"
#include "support/redis_server.hpp"
#include "support/slow_http_server.hpp"
#include "unchanged/clients.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include <doctest/doctest.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include <dlfcn.h>

namespace {

using namespace annulet::test;
using namespace std::chrono_literals;
using steady = std::chrono::steady_clock;

constexpr int calls = 300;
constexpr double limit = 1.5;  // seconds
constexpr int too_long = 60;   // seconds for a call that does not wait to its end

double seconds_since(steady::time_point start) {
  return std::chrono::duration<double>(steady::now() - start).count();
}

struct servers {
  servers() {
    REQUIRE(becomes_true([&] { return PQping(postgres.conninfo().c_str()) == PQPING_OK; }));
  }
  [[nodiscard]] addresses where() const {
    return {postgres.conninfo(), http.url(), redis.host(), redis.port()};
  }

  postgres_server postgres;
  slow_http_server http;
  redis_server redis;
  std::size_t descriptors = open_descriptors();  // with their pipes, and nothing else
};

// Started once, without a hub; also where a single case is run.
const servers& all_servers() {
  static const servers all;
  return all;
}

struct curl_library {
  curl_library() { REQUIRE(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK); }
  ~curl_library() { curl_global_cleanup(); }
};

// `count` fibers at once, each with its number.
template <class Function>
std::vector<annulet::fiber<void>> in_fibers(int count, Function run) {
  std::vector<annulet::fiber<void>> all;
  for (int i = 0; i < count; ++i) {
    all.push_back(annulet::spawn([run, i] { run(i); }));
  }
  return all;
}

void join(std::vector<annulet::fiber<void>> all) {
  for (auto& one : all) {
    one.join();
  }
}

void kill_and_join(std::vector<annulet::fiber<void>> all) {
  for (auto& one : all) {
    one.kill();
  }
  join(std::move(all));
}

using crowd = std::vector<std::unique_ptr<client>>;

// All of them, connected by whichever case is run first: that takes longer than the cases. Connections know
// of no hub, and outlive one.
crowd& connected_crowd() {
  static crowd all;
  all.resize(calls);
  join(in_fibers(calls, [](int i) {
    auto& mine = all[static_cast<std::size_t>(i)];
    if (mine == nullptr) {
      mine = make_client(all_servers().where(), i);
    }
  }));
  return all;
}

// One good call of each kind.
void check_good_calls(const addresses& where) {
  join(in_fibers(kinds_of_clients, [&](int i) {
    const auto one = make_client(where, i);
    CHECK(one->ask(1) == one->right());
  }));
}

}  // namespace

TEST_CASE("what the libraries call is libannulet-posix") {
  for (const char* const name : {"poll", "select", "recv", "read", "send", "write", "connect", "close"}) {
    CAPTURE(name);
    Dl_info found{};
    REQUIRE(::dladdr(::dlsym(RTLD_DEFAULT, name), &found) != 0);
    CHECK(std::string(found.dli_fname).find("libannulet-posix") != std::string::npos);
  }
}

TEST_CASE("a hundred calls each of libpq, libcurl and hiredis, each of a second, take little more at once") {
  all_servers();
  const annulet::hub home;
  const curl_library curl;
  const crowd& all = connected_crowd();
  double took = 0;
  // What the machine does beside it only adds, so one of a few attempts has to keep to the limit.
  for (int attempt = 0; attempt < 5; ++attempt) {
    std::vector<outcome> came(calls);
    const auto cpu = thread_cpu();
    const auto start = steady::now();
    join(in_fibers(calls, [&](int i) {
      const auto at = static_cast<std::size_t>(i);
      came[at] = all[at]->ask(1);
    }));
    took = seconds_since(start);
    const std::chrono::duration<double> used = thread_cpu() - cpu;
    int right = 0;
    for (std::size_t i = 0; i < calls; ++i) {
      right += came[i] == all[i]->right();
      CHECK_MESSAGE(came[i] == all[i]->right(), came[i].text);
    }
    std::printf("note: %d calls at once: %d right, in %.2f s, of which %.0f ms of the thread's CPU time\n",
                calls, right, took, used.count() * 1e3);
    if (took < limit) {
      break;
    }
  }
  CHECK(took >= 1.0);
  CHECK(took < limit);
}

TEST_CASE("the same calls one after the other, without the library") {
  if (std::getenv("ANNULET_UNCHANGED_ALONE") == nullptr) {
    return;
  }
  const addresses where = all_servers().where();
  const auto start = steady::now();
  program alone(built("tests", "unchanged_alone"), {where.conninfo, where.url, where.redis_host,
                                                    std::to_string(where.redis_port), std::to_string(calls)});
  for (int i = 0; i < calls; ++i) {
    CHECK(alone.line() == "right");
  }
  const double took = seconds_since(start);
  CHECK(alone.wait().exit == 0);
  std::printf("note: %d calls one after the other: %.2f s\n", calls, took);
  CHECK(took >= calls);
}

TEST_CASE("who waits for a list gets what another fiber pushes") {
  const addresses where = all_servers().where();
  const annulet::hub home;
  std::vector<outcome> came(10);
  auto waiting =
      in_fibers(10, [&](int i) { came[static_cast<std::size_t>(i)] = redis_client(where, i).ask(too_long); });
  redis_client pusher(where, 10);
  for (int i = 9; i >= 0; --i) {
    CHECK(pusher.answer_to("RPUSH list-" + std::to_string(i) + " value-" + std::to_string(i)).text == "1");
  }
  join(std::move(waiting));
  for (std::size_t i = 0; i < came.size(); ++i) {
    CHECK(came[i].text == "list-" + std::to_string(i) + " value-" + std::to_string(i));
  }
}

TEST_CASE("calls that are killed in the middle fail, clean-up leaves nothing, and the thread goes on") {
  const addresses where = all_servers().where();
  std::vector<outcome> came(calls);
  {
    const annulet::hub home;
    const curl_library curl;
    crowd& all = connected_crowd();
    auto asking = in_fibers(calls, [&](int i) {
      const auto at = static_cast<std::size_t>(i);
      came[at] = all[at]->ask(too_long);
      all[at].reset();
    });
    const auto start = steady::now();
    annulet::this_fiber::sleep_for(300ms);
    kill_and_join(std::move(asking));
    std::printf("note: %d calls killed after 0.3 s, and cleaned up after, in %.2f s\n", calls,
                seconds_since(start));
    check_good_calls(where);
  }
  CHECK(open_descriptors() == all_servers().descriptors);
  const std::string cancelled = std::strerror(ECANCELED);
  for (std::size_t i = 0; i < came.size(); ++i) {
    CHECK(came[i].failed);
    CHECK_FALSE(came[i].text.empty());
    const bool is_curl = i % kinds_of_clients == kind_of_curl;  // that has no word for it
    CHECK_MESSAGE(came[i].text.find(is_curl ? "bad argument" : cancelled) != std::string::npos, came[i].text);
  }
  for (std::size_t i = 0; i < kinds_of_clients; ++i) {
    std::printf("note: killed, it says: %s\n", came[i].text.substr(0, came[i].text.find('\n')).c_str());
  }
}

TEST_CASE("who is killed while it connects has no connection, and leaves nothing") {
  constexpr int some = 10 * kinds_of_clients;
  const addresses where = all_servers().where();
  const std::size_t before = open_descriptors();
  {
    const annulet::hub home;
    const curl_library curl;
    std::vector<outcome> came(some);
    auto connecting = in_fibers(some, [&](int i) {
      const auto one = make_client(where, i);
      came[static_cast<std::size_t>(i)] = one->ask(too_long);
    });
    annulet::this_fiber::yield();
    kill_and_join(std::move(connecting));
    for (const outcome& each : came) {
      CHECK(each.failed);
    }
    check_good_calls(where);
  }
  CHECK(open_descriptors() == before);
}
