#include "harness.hpp"

#include <sched.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "report.hpp"
#include "syscall_counter.hpp"

namespace bench {
namespace {

double clock_ns(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

double to_ns(const timeval& time) {
  return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_usec) * 1e3;
}

void read_usage(accounting charged, sample& into) {
  rusage usage{};
  getrusage(charged == accounting::thread ? RUSAGE_THREAD : RUSAGE_SELF, &usage);
  into.rusage_ns = to_ns(usage.ru_utime) + to_ns(usage.ru_stime);
  into.parks = static_cast<double>(usage.ru_nvcsw);
}

double cpu_ns(accounting charged) {
  return clock_ns(charged == accounting::thread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_PROCESS_CPUTIME_ID);
}

sample run_turn(const contender& who, std::uint64_t operations, accounting charged,
                syscall_counter* counter = nullptr) {
  meter clock(charged, counter);
  who.turn(clock, operations);
  return clock.result();
}

// The values of all turns of one contender, an operation each.
struct series {
  std::vector<double> wall, cpu, rusage, parks, client_sleeps;

  void add(const sample& one) {
    const auto operations = static_cast<double>(one.operations);
    wall.push_back(one.wall_ns / operations);
    cpu.push_back(one.cpu_ns / operations);
    rusage.push_back(one.rusage_ns / operations);
    parks.push_back(one.parks / operations);
    if (one.client_sleeps) {
      client_sleeps.push_back(*one.client_sleeps / operations);
    }
  }
  const std::vector<double>& of(metric kind) const { return kind == metric::cpu ? cpu : wall; }
};

std::optional<double> count_syscalls(const contender& who, std::uint64_t operations, accounting charged) {
  auto counter = syscall_counter::open();
  if (!counter) {
    return std::nullopt;
  }
  const sample counted = run_turn(who, std::max<std::uint64_t>(operations / 4, 1), charged, &*counter);
  return counted.syscalls / static_cast<double>(counted.operations);
}

standing stand(const contender& who, const series& own) {
  standing line{.name = who.name,
                .wall_ns = spread::of(own.wall),
                .cpu_ns = spread::of(own.cpu),
                .rusage_ns = spread::of(own.rusage),
                .parks = spread::of(own.parks)};
  if (!own.client_sleeps.empty()) {
    line.client_sleeps = spread::of(own.client_sleeps);
  }
  line.goal = who.goal;
  line.own = who.own;
  return line;
}

spread pairwise(const std::vector<double>& subject, const std::vector<double>& baseline) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < subject.size(); ++i) {
    ratios.push_back(subject[i] / baseline[i]);
  }
  return spread::of(std::move(ratios));
}

}  // namespace

void fail(const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  std::fflush(stdout);
  std::fputs("annulet_bench: ", stderr);
  std::vfprintf(stderr, format, arguments);
  std::fputc('\n', stderr);
  va_end(arguments);
  std::_Exit(1);  // from inside a fiber or a C library's callback nothing may be unwound
}

void meter::start() {
  read_usage(charged_, before_);
  before_.cpu_ns = cpu_ns(charged_);
  before_.wall_ns = clock_ns(CLOCK_MONOTONIC);
  if (counter_ != nullptr) {
    counter_->start();
  }
}

void meter::stop(std::uint64_t operations) {
  if (counter_ != nullptr) {
    cost_.syscalls = static_cast<double>(counter_->stop());
  }
  sample after;
  after.wall_ns = clock_ns(CLOCK_MONOTONIC);
  after.cpu_ns = cpu_ns(charged_);
  read_usage(charged_, after);
  cost_.operations = operations;
  cost_.wall_ns = after.wall_ns - before_.wall_ns;
  cost_.cpu_ns = after.cpu_ns - before_.cpu_ns;
  cost_.rusage_ns = after.rusage_ns - before_.rusage_ns;
  cost_.parks = after.parks - before_.parks;
}

void meter::client_slept(double times_an_operation) {
  cost_.client_sleeps = times_an_operation * static_cast<double>(cost_.operations);
}

void meter::took(double wall_ns, std::optional<double> cpu_ns) {
  const auto operations = static_cast<double>(cost_.operations);
  cost_.wall_ns = wall_ns * operations;
  if (cpu_ns) {
    cost_.cpu_ns = cost_.rusage_ns = *cpu_ns * operations;
  }
}

const sample& meter::result() const {
  if (cost_.operations == 0) {
    fail("a turn ended without a measurement");
  }
  return cost_;
}

goal goal::at_most(double bound, std::string remark) { return {sense::at_most, bound, std::move(remark)}; }
goal goal::at_least(double bound, std::string remark) { return {sense::at_least, bound, std::move(remark)}; }

bool goal::met_by(double cost_ratio) const {
  return direction == sense::at_most ? cost_ratio <= bound : 1 / cost_ratio >= bound;
}

spread spread::of(std::vector<double> values) {
  if (values.empty()) {
    return {};
  }
  std::sort(values.begin(), values.end());
  // Between two values their weighted mean, so that few pairs do not make the quartiles jump.
  const auto at = [&](double share) {
    const double place = share * static_cast<double>(values.size() - 1);
    const auto below = static_cast<std::size_t>(place);
    const auto above = std::min(below + 1, values.size() - 1);
    return values[below] + (values[above] - values[below]) * (place - static_cast<double>(below));
  };
  return {values.front(), at(0.25), at(0.5), at(0.75)};
}

// How many operations fill one turn: grows from one until the measured part is long enough to be scaled.
std::uint64_t harness::calibrate(const contender& who, accounting charged, double wanted) const {
  std::uint64_t operations = 1;
  for (;;) {
    const sample taken = run_turn(who, operations, charged);
    const double each = taken.wall_ns / static_cast<double>(taken.operations);
    const auto filling = static_cast<std::uint64_t>(std::max(1.0, wanted / std::max(each, 0.1)));
    if (taken.wall_ns >= wanted / 4 || filling <= taken.operations) {
      return filling;
    }
    operations = std::min(filling, taken.operations * 30);
  }
}

void harness::hold(const contest& what) {
  std::vector<contender> all{what.subject};
  all.insert(all.end(), what.baselines.begin(), what.baselines.end());
  std::vector<std::uint64_t> operations;
  for (const contender& who : all) {
    operations.push_back(calibrate(who, what.charged, options_.turn_ns() * what.turn_length));
  }

  std::vector<series> measured(all.size());
  const int pairs = std::min(options_.pairs(), what.pairs_at_most.value_or(options_.pairs()));
  for (int round = 0; round < pairs; ++round) {
    for (std::size_t i = 0; i < all.size(); ++i) {
      const std::size_t turn = round % 2 == 0 ? i : all.size() - 1 - i;
      measured[turn].add(run_turn(all[turn], operations[turn], what.charged));
    }
  }

  outcome result{.bench = what.bench, .setting = what.setting, .operation = what.operation};
  result.judged_by = what.judged_by;
  result.pairs = pairs;
  result.turn_ns = options_.turn_ns() * what.turn_length;
  if (what.reference) {
    result.reference = what.baselines[*what.reference].name;
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    standing line = stand(all[i], measured[i]);
    line.syscalls = count_syscalls(all[i], operations[i], what.charged);
    if (i > 0) {
      line.ratio = pairwise(measured[0].of(what.judged_by), measured[i].of(what.judged_by));
      line.cpu_ratio = pairwise(measured[0].cpu, measured[i].cpu);
    }
    if (what.reference) {
      line.to_reference = pairwise(measured[i].cpu, measured[1 + *what.reference].cpu);
    }
    if (line.own) {
      const auto rival = std::ranges::find(all, line.own->against, &contender::name);
      if (rival == all.end()) {
        fail("%s: nobody is called '%s'", what.bench.c_str(), line.own->against.c_str());
      }
      const series& its = measured[static_cast<std::size_t>(rival - all.begin())];
      line.own_ratio = pairwise(measured[i].of(what.judged_by), its.of(what.judged_by));
    }
    result.standings.push_back(std::move(line));
  }
  judge(what, result);
  print(result, options_);
  outcomes_.push_back(std::move(result));
}

void harness::skip(std::string bench, std::string setting, std::string reason) {
  outcome result{.bench = std::move(bench), .setting = std::move(setting), .operation = {}};
  result.remark = "skipped: " + std::move(reason);
  note(std::move(result));
}

void harness::note(outcome result) {
  print(result, options_);
  outcomes_.push_back(std::move(result));
}

double harness::floor_of(const std::string& name, const turn_function& turn) {
  const contender who{.name = name, .turn = turn};
  const std::uint64_t operations = calibrate(who, accounting::thread, options_.turn_ns());
  std::vector<double> each;
  for (int i = 0; i < options_.pairs(); ++i) {
    const sample taken = run_turn(who, operations, accounting::thread);
    each.push_back(taken.wall_ns / static_cast<double>(taken.operations));
  }
  floors_.push_back({name, spread::of(each).median});
  return floors_.back().ns;
}

const processors& usable_processors() {
  static const processors chosen = [] {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
      fail("sched_getaffinity failed");
    }
    processors found;
    // The last one for ourselves: the first is where interrupts tend to go.
    for (int i = 0; i < CPU_SETSIZE; ++i) {
      if (!CPU_ISSET(i, &allowed)) {
        continue;
      }
      if (CPU_COUNT(&allowed) > 1 && !found.other) {
        found.other = i;
      }
      found.own = i;
    }
    return found;
  }();
  return chosen;
}

void pin_this_thread(int processor) {
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(processor, &only);
  if (sched_setaffinity(0, sizeof only, &only) != 0) {
    fail("cannot pin to processor %d", processor);
  }
}

std::uint64_t available_memory() {
  std::ifstream file("/proc/meminfo");
  std::string name, rest;
  std::uint64_t kibibytes = 0;
  while (file >> name >> kibibytes && std::getline(file, rest)) {
    if (name == "MemAvailable:") {
      return kibibytes * 1024;
    }
  }
  return 0;
}

std::size_t open_file_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
    return 0;
  }
  if (limit.rlim_cur < limit.rlim_max) {
    const rlimit raised{limit.rlim_max, limit.rlim_max};
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0) {
      limit = raised;
    }
  }
  return limit.rlim_cur;
}

}  // namespace bench
