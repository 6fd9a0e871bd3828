// The harness: runs a subject and its baselines in turn and keeps what they cost.
//
// A *contest* is one workload at one size: a subject, its baselines, and what is asked of the subject against
// each of them. A *turn* is one contender's run of some thousand operations; it sets itself up, warms up,
// times its middle with the meter, checks what came out, and takes itself down again. Turns go A B C C B A A
// B C ..., so that the subject and the first baseline are always neighbours and a drift of the machine falls
// on both alike. One round of turns gives one pair for each baseline; what is judged is the median of the
// pairwise ratios.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace bench {

class syscall_counter;

// Says what went wrong on stderr and ends the process: a bench whose results are wrong has no figures.
[[noreturn, gnu::format(printf, 1, 2)]] void fail(const char* format, ...);

// What one turn cost, all of its operations together.
struct sample {
  std::uint64_t operations = 0;
  double wall_ns = 0;
  double cpu_ns = 0;                         // CLOCK_THREAD_CPUTIME_ID, or CLOCK_PROCESS_CPUTIME_ID
  double rusage_ns = 0;                      // user and system time by getrusage, to hold the clock against
  double parks = 0;                          // voluntary context switches
  double syscalls = 0;                       // only where a counter was given
  std::optional<double> client_sleeps = {};  // where there is a client: how often it waited, asleep
};

// Whose processor time, context switches and system calls an operation is charged with.
enum class accounting { thread, process };

// Times the middle of a turn. By one thread, or where the whole process is charged by any, one at a time.
class meter {
 public:
  explicit meter(accounting charged = accounting::thread, syscall_counter* counter = nullptr)
      : charged_(charged), counter_(counter) {}

  void start();
  void stop(std::uint64_t operations);
  // After stop:
  void client_slept(double times_an_operation);
  // What an operation took is this and not the mean of what was timed here: a percentile of it, or the
  // figures of another process, which has measured itself.
  void took(double wall_ns, std::optional<double> cpu_ns = {});
  const sample& result() const;

 private:
  accounting charged_;
  syscall_counter* counter_;
  sample before_;
  sample cost_;
};

// Runs about that many operations (at least one unit of its own) and reports to the meter how many it were.
using turn_function = std::function<void(meter&, std::uint64_t operations)>;

// What is asked of the subject against one baseline.
struct goal {
  enum class sense {
    at_most,   // subject's cost / baseline's cost <= bound
    at_least,  // baseline's cost / subject's cost >= bound
  };
  sense direction;
  double bound;
  std::string remark = {};

  static goal at_most(double bound, std::string remark = {});
  static goal at_least(double bound, std::string remark = {});
  bool met_by(double cost_ratio) const;
};

// A contender that is itself held against another.
struct rivalry {
  std::string against;                    // the other's name
  std::optional<bench::goal> bound = {};  // without it the ratio is only told
};

struct contender {
  std::string name;
  turn_function turn;
  std::optional<bench::goal> goal = {};  // of the subject against this one
  std::optional<rivalry> own = {};
};

enum class metric { wall, cpu };

struct contest {
  std::string bench;
  std::string setting;    // the size, for instance "N=1000 A=32"
  std::string operation;  // what one operation is
  contender subject;
  std::vector<contender> baselines;
  metric judged_by = metric::wall;
  accounting charged = accounting::thread;
  std::optional<std::size_t> reference = {};    // the baseline that each contender is held against in print
  double turn_length = 1;                       // times run_options::turn_ns()
  std::optional<int> pairs_at_most = {};        // where a turn takes seconds
  std::optional<double> syscalls_at_most = {};  // of the subject, an operation
  std::optional<double> parks_at_least = {};    // an operation; below it the figures mean nothing
};

struct spread {
  double minimum = 0;
  double low_quartile = 0;
  double median = 0;
  double high_quartile = 0;

  static spread of(std::vector<double> values);
};

// One line of the table.
struct standing {
  std::string name;
  spread wall_ns;  // an operation, as all that follow
  spread cpu_ns;
  spread rusage_ns;
  spread parks;
  std::optional<spread> client_sleeps = {};
  std::optional<double> syscalls = {};
  std::optional<spread> ratio =
      {};  // subject's cost / this one's, pair by pair, by what the contest is judged by
  std::optional<spread> cpu_ratio = {};
  std::optional<spread> to_reference = {};  // this one's CPU / the reference's, pair by pair
  std::optional<bench::goal> goal = {};
  std::optional<rivalry> own = {};
  std::optional<spread> own_ratio = {};  // this one's cost / its rival's, by what the contest is judged by
};

// One thing that was asked, and what came out. Unset where it could not be judged.
struct verdict {
  std::string asked;
  std::string found;
  std::optional<bool> met = {};
};

struct outcome {
  std::string bench;
  std::string setting;
  std::string operation;
  metric judged_by = metric::wall;
  int pairs = 0;                         // where it was a contest
  double turn_ns = 0;                    // what a turn was to take
  std::string reference = {};            // its name, where there is one
  std::vector<standing> standings = {};  // the subject first
  std::vector<verdict> verdicts = {};
  std::string remark = {};
};

struct floor_figure {
  std::string name;
  double ns = 0;
};

struct run_options {
  bool quick = false;
  bool whole = false;  // no workload was named, so all of them run
  double load = 0;     // of the machine, before
  int pairs() const { return quick ? 5 : 25; }
  double turn_ns() const { return quick ? 8e6 : 20e6; }
};

class harness {
 public:
  explicit harness(run_options options) : options_(options) {}

  void hold(const contest& what);                                         // runs it and prints its table
  void skip(std::string bench, std::string setting, std::string reason);  // says so, in the JSON too
  void note(outcome result);                                              // what is no contest
  double floor_of(const std::string& name,
                  const turn_function& turn);  // the best of a few turns, an operation

  const run_options& options() const { return options_; }
  const std::vector<outcome>& outcomes() const { return outcomes_; }
  const std::vector<floor_figure>& floors() const { return floors_; }

 private:
  std::uint64_t calibrate(const contender& who, accounting charged, double turn_ns) const;

  run_options options_;
  std::vector<outcome> outcomes_;
  std::vector<floor_figure> floors_;
};

// The two processors that benches pin themselves to. Empty `other` where the process may use only one.
struct processors {
  int own = 0;
  std::optional<int> other = {};
};
const processors& usable_processors();  // fixed at the first call, before anything is pinned
void pin_this_thread(int processor);

// Bytes of memory that can be had without swapping, and descriptors that this process may open.
std::uint64_t available_memory();
std::size_t open_file_limit();

}  // namespace bench
