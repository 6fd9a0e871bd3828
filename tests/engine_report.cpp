// Says on one line which engine a hub is on here and what was refused, for ./dev test.
#include <annulet/hub/hub.hpp>

#include <cstdio>
#include <exception>

int main() {
  try {
    annulet::hub hub;
    const annulet::engine_info& report = hub.engine_report();
    std::printf("%s", report.name.c_str());
    for (const std::string& flag : report.flags) {
      std::printf(" %s", flag.c_str());
    }
    for (const std::string& reason : report.refused) {
      std::printf("; %s", reason.c_str());
    }
    std::printf("\n");
    return 0;
  } catch (const std::exception& e) {
    std::printf("none: %s\n", e.what());
    return 1;
  }
}
