// annulet_bench [NAME...] [--quick] [--list] [--json FILE]
//
// Runs all workloads or those that are named, each with its baselines in turn. See harness.hpp for the method
// and the first lines of each *_bench.cpp for what is held against what.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "benches.hpp"
#include "harness.hpp"
#include "report.hpp"

namespace {

struct workload {
  std::string_view name;
  void (*run)(bench::harness&);
  const char* about;
};

constexpr workload workloads[] = {
    {"switch", bench::bench_switch, "2, 1,000 and 100,000 fibers that yield: raw jump_fcontext, Boost.Fiber"},
    {"spawn_join", bench::bench_spawn_join, "an empty fiber: Boost.Fiber, std::thread"},
    {"skynet", bench::bench_skynet, "a tree of 1,111,111 fibers that sum: Boost.Fiber, Go (some minutes)"},
    {"ping_pong", bench::bench_ping_pong, "channel, queue, mutex, semaphore: Boost.Fiber, threads"},
    {"park_1m", bench::bench_park_1m, "memory of a million parked fibers: Boost.Fiber, Go"},
    {"timers_1m", bench::bench_timers_1m, "a million timers that fire or are cancelled: libuv, libev"},
    {"wake", bench::bench_wake, "a fiber that another thread wakes: eventfd and epoll, futexes"},
    {"sel_active", bench::bench_sel_active, "few active of many: epoll, libev, libevent, libuv"},
    {"sel_park", bench::bench_sel_park, "CPU of a wait that sleeps: epoll"},
    {"sel_scale", bench::bench_sel_scale, "1 active, up to 9,900 idle: poll, select, epoll"},
    {"sel_churn", bench::bench_sel_churn, "64 come and go between two looks: epoll_ctl ADD and DEL"},
    {"sel_modify", bench::bench_sel_modify, "64 change their interest and back: epoll_ctl MOD"},
    {"sel_zero", bench::bench_sel_zero, "a look at nothing: epoll_wait(0)"},
    {"drop_in", bench::bench_drop_in, "poll, select, epoll_wait: the plain calls, and two threads of them"},
    {"echo", bench::bench_echo,
     "server CPU an echo over TCP: epoll, io_uring, libuv, libevent, Asio, threads (some minutes)"},
    {"echo_idle", bench::bench_echo_idle, "memory of 18,000 connections that say nothing"},
};

constexpr const char* usage = "usage: annulet_bench [NAME...] [--quick] [--list] [--json FILE]\n";

struct command_line {
  std::vector<workload> chosen;
  bool quick = false;
  bool whole = false;
  bool list = false;
  std::optional<std::string> json = {};
};

[[noreturn]] void refuse(const std::string& why) {
  std::fprintf(stderr, "annulet_bench: %s\n%s", why.c_str(), usage);
  std::exit(2);
}

const workload& find(std::string_view name) {
  std::string known;
  for (const workload& one : workloads) {
    if (one.name == name) {
      return one;
    }
    known += " " + std::string(one.name);
  }
  refuse("no bench is called '" + std::string(name) + "'; there are:" + known);
}

command_line parse(std::span<char*> arguments) {
  command_line line;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string_view word = arguments[i];
    if (word == "--quick") {
      line.quick = true;
    } else if (word == "--list") {
      line.list = true;
    } else if (word == "--help") {
      std::fputs(usage, stdout);
      std::exit(0);
    } else if (word == "--json") {
      if (++i == arguments.size()) {
        refuse("--json needs the name of a file");
      }
      line.json = arguments[i];
    } else if (word.starts_with("-")) {
      refuse("unknown option '" + std::string(word) + "'");
    } else {
      line.chosen.push_back(find(word));
    }
  }
  if (line.chosen.empty()) {
    line.whole = true;
    line.chosen.assign(std::begin(workloads), std::end(workloads));
  }
  return line;
}

}  // namespace

int main(int argc, char** argv) {
  const command_line line = parse(std::span(argv, static_cast<std::size_t>(argc)).subspan(1));
  if (line.list) {
    for (const workload& one : workloads) {
      std::printf("%-12s %s\n", one.name.data(), one.about);
    }
    return 0;
  }
  std::ofstream json;
  if (line.json) {
    json.open(*line.json);
    if (!json) {
      refuse("cannot write '" + *line.json + "': " + std::strerror(errno));
    }
  }
  bench::open_file_limit();  // raises the soft limit to the hard one, before anything is measured
  bench::pin_this_thread(bench::usable_processors().own);

  bench::harness run({.quick = line.quick, .whole = line.whole, .load = bench::load_average()});
  bench::print_machine(run.options());
  try {
    bench::measure_floors(run);
    for (const workload& one : line.chosen) {
      one.run(run);
    }
  } catch (const std::exception& error) {
    bench::fail("%s", error.what());  // for instance: this machine refuses io_uring
  }
  bench::print_summary(run);
  if (line.json) {
    bench::write_json(json, run);
    if (!json.flush()) {
      bench::fail("writing '%s' failed", line.json->c_str());
    }
  }
  return 0;
}
