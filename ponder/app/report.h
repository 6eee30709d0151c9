// report.html (self-contained) and report.md of a run, from what its folder holds: so a report can be made again at any
// time, of an unfinished run too.
#pragma once

#include <string>

#include "ponder/base/run_dir.h"

namespace ponder::app {

// Writes both files into the run's folder; returns the path of report.html.
std::string write_report(const RunDir& run);

}  // namespace ponder::app
