// A PostgreSQL server of a test's own, on a Unix socket in a folder of its own. It ends with the test.
#pragma once

#include "other_user.hpp"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace annulet::test {

class postgres_server {
 public:
  explicit postgres_server(cores its = cores::all) {
    nobody_.give(its_);
    program made(programs() / "initdb",
                 {"-D", data(), "-U", "annulet", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync",
                  "--no-instructions"},
                 nobody_.become(SIGKILL));
    if (const program_end end = made.wait(); end.exit != 0) {
      throw std::runtime_error("initdb: " + end.out + end.err);
    }
    // On SIGQUIT it ends at once, and its children with it, and gives back what the kernel holds for it.
    run_.emplace(programs() / "postgres", options(), nobody_.become(SIGQUIT, its));
  }
  ~postgres_server() {
    run_->signal(SIGQUIT);
    run_->wait();
  }
  postgres_server(const postgres_server&) = delete;
  postgres_server& operator=(const postgres_server&) = delete;

  [[nodiscard]] std::string conninfo() const {
    return "host=" + its_.path() +
           " port=5432 user=annulet dbname=postgres sslmode=disable gssencmode=disable";
  }

 private:
  [[nodiscard]] std::string data() const { return its_ / "data"; }

  [[nodiscard]] std::vector<std::string> options() const {
    std::vector<std::string> all{"-D", data(), "-k", its_.path(), "-p", "5432"};
    for (const char* const setting :
         {"listen_addresses=", "max_connections=250", "fsync=off", "synchronous_commit=off",
          "full_page_writes=off", "autovacuum=off", "jit=off", "shared_buffers=16MB", "wal_level=minimal",
          "max_wal_senders=0", "max_parallel_workers_per_gather=0", "log_min_messages=fatal"}) {
      all.insert(all.end(), {"-c", setting});
    }
    return all;
  }

  // Debian has a folder for each version.
  static std::filesystem::path programs() {
    std::vector<std::filesystem::path> found;
    std::error_code none;
    for (const auto& version : std::filesystem::directory_iterator("/usr/lib/postgresql", none)) {
      if (std::filesystem::exists(version.path() / "bin/initdb") &&
          std::filesystem::exists(version.path() / "bin/postgres")) {
        found.push_back(version.path() / "bin");
      }
    }
    if (found.empty()) {
      throw std::runtime_error("there is no PostgreSQL in /usr/lib/postgresql");
    }
    return *std::ranges::max_element(found);
  }

  folder its_;
  other_user nobody_;
  std::optional<program> run_;
};

}  // namespace annulet::test
