#include "ponder/app/commands.h"
#include "ponder/app/options.h"
#include "ponder/app/report.h"
#include "ponder/base/error.h"
namespace ponder::app {
#define PENDING(name) int name(const Arguments&) { throw_error(Exit::failure, "being written"); }
PENDING(report_command)
PENDING(runs_list_command)
PENDING(runs_show_command)
PENDING(runs_compare_command)
PENDING(runs_tail_command)
PENDING(runs_export_command)
PENDING(runs_reindex_command)
PENDING(runs_rm_command)
PENDING(bench_command)
PENDING(model_init_command)
PENDING(model_show_command)
PENDING(model_verify_command)
PENDING(doctor_command)
std::string write_report(const RunDir& run) { return run.file("report.html"); }
}
