#include "report.hpp"

#include <sys/utsname.h>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <fstream>
#include <string>
#include <string_view>

#include "syscall_counter.hpp"

namespace bench {
namespace {

#ifdef __OPTIMIZE__
constexpr bool optimised = true;
#else
constexpr bool optimised = false;
#endif

[[gnu::format(printf, 1, 2)]] std::string text(const char* format, ...) {
  char buffer[256];
  std::va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(buffer, sizeof buffer, format, arguments);
  va_end(arguments);
  return buffer;
}

std::string processor_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) {
      return line.substr(line.find(':') + 2);
    }
  }
  return "an unknown processor";
}

std::string kernel_release() {
  utsname name{};
  return uname(&name) == 0 ? name.release : "unknown";
}

std::string figure(double ns) { return ns < 99.95 ? text("%.1f", ns) : text("%.0f", ns); }

std::string times(double ratio) { return ratio < 9.995 ? text("%.3fx", ratio) : text("%.0fx", ratio); }

std::string asked_text(const goal& asked) {
  const bool at_most = asked.direction == goal::sense::at_most;
  return text("%s %gx%s", at_most ? "<=" : ">=", asked.bound, at_most ? "" : " faster");
}

// The ratio in the direction in which it was asked for.
std::string found_text(const goal& asked, const spread& ratio) {
  if (asked.direction == goal::sense::at_most) {
    return times(ratio.median) + " [" + times(ratio.low_quartile) + " .. " + times(ratio.high_quartile) + "]";
  }
  return times(1 / ratio.median) + " [" + times(1 / ratio.high_quartile) + " .. " +
         times(1 / ratio.low_quartile) + "]";
}

const char* word(const std::optional<bool>& met) { return !met ? "not judged" : *met ? "met" : "MISSED"; }

// Writes JSON that is always well-formed as long as every open has its close.
class json_writer {
 public:
  explicit json_writer(std::ostream& out) : out_(out) {}

  void open(char bracket) {
    comma();
    out_ << bracket;
    first_ = true;
  }
  void close(char bracket) {
    out_ << bracket;
    first_ = false;
  }
  json_writer& key(std::string_view name) {
    value(name);
    out_ << ": ";
    first_ = true;
    return *this;
  }
  void value(double number) {
    comma();
    out_ << (std::isfinite(number) ? text("%.6g", number) : "null");
  }
  void value(bool truth) {
    comma();
    out_ << (truth ? "true" : "false");
  }
  void null() {
    comma();
    out_ << "null";
  }
  void value(std::string_view string) {
    comma();
    out_ << '"';
    for (const char c : string) {
      if (c == '"' || c == '\\') {
        out_ << '\\' << c;
      } else if (static_cast<unsigned char>(c) < 0x20) {
        out_ << text("\\u%04x", c);
      } else {
        out_ << c;
      }
    }
    out_ << '"';
  }
  void value(const char* string) { value(std::string_view(string)); }
  template <class T>
  void value(const std::optional<T>& maybe) {
    maybe ? value(*maybe) : null();
  }
  void value(const spread& figures) {
    open('{');
    key("min").value(figures.minimum);
    key("q1").value(figures.low_quartile);
    key("median").value(figures.median);
    key("q3").value(figures.high_quartile);
    close('}');
  }

 private:
  void comma() {
    if (!first_) {
      out_ << ", ";
    }
    first_ = false;
  }
  std::ostream& out_;
  bool first_ = true;
};

void write_outcome(json_writer& json, const outcome& result) {
  json.open('{');
  json.key("bench").value(result.bench);
  json.key("setting").value(result.setting);
  json.key("operation").value(result.operation);
  json.key("judged_by").value(result.judged_by == metric::cpu ? "cpu" : "wall");
  json.key("pairs").value(static_cast<double>(result.pairs));
  json.key("turn_ns").value(result.turn_ns);
  if (!result.reference.empty()) {
    json.key("reference").value(result.reference);
  }
  if (!result.remark.empty()) {
    json.key("remark").value(result.remark);
  }
  json.key("contenders").open('[');
  for (const standing& line : result.standings) {
    json.open('{');
    json.key("name").value(line.name);
    json.key("wall_ns").value(line.wall_ns);
    json.key("cpu_ns").value(line.cpu_ns);
    json.key("rusage_ns").value(line.rusage_ns);
    json.key("parks").value(line.parks);
    json.key("client_sleeps").value(line.client_sleeps);
    json.key("syscalls").value(line.syscalls);
    json.key("subject_to_this").value(line.ratio);
    json.key("subject_to_this_by_cpu").value(line.cpu_ratio);
    json.key("this_to_reference_by_cpu").value(line.to_reference);
    if (line.own) {
      json.key("rival").value(line.own->against);
      json.key("this_to_rival").value(line.own_ratio);
    }
    json.close('}');
  }
  json.close(']');
  json.key("verdicts").open('[');
  for (const verdict& one : result.verdicts) {
    json.open('{');
    json.key("asked").value(one.asked);
    json.key("found").value(one.found);
    json.key("met").value(one.met);
    json.close('}');
  }
  json.close(']');
  json.close('}');
}

}  // namespace

double load_average() {
  double load = 0;
  std::ifstream("/proc/loadavg") >> load;
  return load;
}

void print_machine(const run_options& options) {
  std::printf("%s, %s processors used, Linux %s, load %.2f\n", processor_model().c_str(),
              usable_processors().other ? "2" : "1", kernel_release().c_str(), options.load);
  std::printf(
      "%d pairs of turns of %.0f ms each, A B B A; figures are medians, ratios medians of pairs "
      "with [quartiles]\n",
      options.pairs(), options.turn_ns() / 1e6);
  if (options.quick) {
    std::puts("--quick: few and short turns, good to see that all works, not to be quoted");
  }
  if (options.load > 0.5) {
    std::puts("others are at work on this machine: its figures are not to be quoted");
  }
  if (!optimised) {
    std::puts("built without optimisation: its figures mean nothing");
  }
  std::puts("\nfloors of this machine");
}

void print_floor(const floor_figure& floor) {
  std::printf("  %-40s %8s ns\n", floor.name.c_str(), figure(floor.ns).c_str());
  std::fflush(stdout);
}

void judge(const contest& asked, outcome& result) {
  const standing& subject = result.standings.front();
  const bool idle = asked.parks_at_least && subject.parks.median < *asked.parks_at_least;
  if (idle) {
    result.remark = "the selects did not park as they should: the other processor was too busy";
  }
  for (const standing& line : result.standings) {
    if (!line.goal || !line.ratio) {
      continue;
    }
    verdict one{.asked = asked_text(*line.goal) + " against " + line.name,
                .found = found_text(*line.goal, *line.ratio)};
    if (!line.goal->remark.empty()) {
      one.asked += " (" + line.goal->remark + ")";
    }
    if (!idle) {
      one.met = line.goal->met_by(line.ratio->median);
    }
    result.verdicts.push_back(std::move(one));
  }
  for (const standing& line : result.standings) {
    if (!line.own || !line.own->bound) {
      continue;
    }
    verdict one{.asked = asked_text(*line.own->bound) + " of " + line.name + " against " + line.own->against,
                .found = found_text(*line.own->bound, *line.own_ratio)};
    if (!idle) {
      one.met = line.own->bound->met_by(line.own_ratio->median);
    }
    result.verdicts.push_back(std::move(one));
  }
  if (asked.syscalls_at_most) {
    verdict one{.asked = text("<= %g system calls", *asked.syscalls_at_most),
                .found = "could not be counted"};
    if (subject.syscalls) {
      one.found = text("%.4f", *subject.syscalls);
      one.met = *subject.syscalls <= *asked.syscalls_at_most;
    }
    result.verdicts.push_back(std::move(one));
  }
}

namespace {

// Where a subject is held against its baselines, one by one.
void print_table(const outcome& result) {
  const bool by_cpu = result.judged_by == metric::cpu;
  std::printf("  %-26s %9s %9s %9s %9s %6s  %s\n", "", "ns/op", "min", "cpu ns", "syscalls", "parks",
              by_cpu ? "annulet's CPU / its" : "annulet's time / its       by CPU");
  for (const standing& line : result.standings) {
    std::printf("  %-26s %9s %9s %9s %9s %6s", line.name.c_str(), figure(line.wall_ns.median).c_str(),
                figure(line.wall_ns.minimum).c_str(), figure(line.cpu_ns.median).c_str(),
                line.syscalls ? text("%.2f", *line.syscalls).c_str() : "-",
                text("%.2f", line.parks.median).c_str());
    if (line.ratio) {
      std::printf("  %.3f [%.3f .. %.3f]", line.ratio->median, line.ratio->low_quartile,
                  line.ratio->high_quartile);
      if (!by_cpu) {
        std::printf("  %.3f", line.cpu_ratio->median);
      }
    }
    std::putchar('\n');
  }
}

// Where all are held against one of them.
void print_field(const outcome& result) {
  std::printf("  %-28s %8s %8s %8s %6s %11s  %-25s %s\n", "", "ns/op", "cpu ns", "syscalls", "parks",
              "client's", "its CPU / that of", "annulet's / its");
  std::printf("  %-28s %8s %8s %8s %6s %11s  %s\n", "", "", "", "", "", "sleeps/100",
              result.reference.c_str());
  for (const standing& line : result.standings) {
    std::printf("  %-28s %8s %8s %8s %6s %11s  %.3f [%.3f .. %.3f]  ", line.name.c_str(),
                figure(line.wall_ns.median).c_str(), figure(line.cpu_ns.median).c_str(),
                line.syscalls ? text("%.2f", *line.syscalls).c_str() : "-",
                text("%.2f", line.parks.median).c_str(),
                line.client_sleeps ? text("%.1f", line.client_sleeps->median * 100).c_str() : "-",
                line.to_reference->median, line.to_reference->low_quartile, line.to_reference->high_quartile);
    std::puts(line.ratio ? text("%.3f", line.ratio->median).c_str() : "");
  }
}

}  // namespace

void print(const outcome& result, const run_options& options) {
  std::printf("\n%s  %s", result.bench.c_str(), result.setting.c_str());
  if (result.standings.empty()) {
    std::printf("  %s\n", result.remark.c_str());
  } else {
    std::printf("   (an operation is %s%s)\n", result.operation.c_str(), options.quick ? "; quick" : "");
    result.reference.empty() ? print_table(result) : print_field(result);
  }
  for (const standing& line : result.standings) {
    if (line.own) {
      std::printf("  %s itself: %.3f [%.3f .. %.3f] of the cost of %s\n", line.name.c_str(),
                  line.own_ratio->median, line.own_ratio->low_quartile, line.own_ratio->high_quartile,
                  line.own->against.c_str());
    }
  }
  for (const verdict& one : result.verdicts) {
    std::printf("  %-10s asked %s; found %s\n", word(one.met), one.asked.c_str(), one.found.c_str());
  }
  if (!result.standings.empty() && !result.remark.empty()) {
    std::printf("  note: %s\n", result.remark.c_str());
  }
  std::fflush(stdout);
}

void print_summary(const harness& run) {
  int met = 0, missed = 0, open = 0;
  for (const outcome& result : run.outcomes()) {
    if (result.standings.empty() && result.verdicts.empty()) {
      ++open;
    }
    for (const verdict& one : result.verdicts) {
      ++(!one.met ? open : *one.met ? met : missed);
    }
  }
  std::printf("\n%d targets met, %d missed, %d not judged\n", met, missed, open);
  for (const outcome& result : run.outcomes()) {
    if (result.standings.empty() && result.verdicts.empty()) {
      std::printf("  %s %s: %s\n", result.bench.c_str(), result.setting.c_str(), result.remark.c_str());
    }
    for (const verdict& one : result.verdicts) {
      if (one.met && *one.met) {
        continue;
      }
      std::printf("  %s: %s %s, asked %s, found %s\n", word(one.met), result.bench.c_str(),
                  result.setting.c_str(), one.asked.c_str(), one.found.c_str());
    }
  }
  if (!syscall_counter::why_not().empty()) {
    std::printf("system calls were not counted: %s\n", syscall_counter::why_not().c_str());
  }
}

void write_json(std::ostream& out, const harness& run) {
  json_writer json(out);
  json.open('{');
  json.key("processor").value(processor_model());
  json.key("kernel").value(kernel_release());
  json.key("load").value(run.options().load);
  json.key("optimised").value(optimised);
  json.key("quick").value(run.options().quick);
  json.key("whole").value(run.options().whole);
  json.key("floors_ns").open('{');
  for (const floor_figure& floor : run.floors()) {
    json.key(floor.name).value(floor.ns);
  }
  json.close('}');
  json.key("results").open('[');
  for (const outcome& result : run.outcomes()) {
    write_outcome(json, result);
  }
  json.close(']');
  json.close('}');
  out << '\n';
}

}  // namespace bench
