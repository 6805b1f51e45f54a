#pragma once

// What `baton simulate --regret` prints.

#include <string>

#include "simulator/regret.h"

namespace baton::cli {

std::string RegretTable(const simulator::RegretReport& report, int64_t workers);
std::string RegretJson(const simulator::RegretReport& report, int64_t workers);
std::string LiveTable(const simulator::LiveReport& report, int64_t workers);
std::string LiveJson(const simulator::LiveReport& report, int64_t workers);

}  // namespace baton::cli
