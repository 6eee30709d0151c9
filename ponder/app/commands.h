// The commands: each reads its Arguments, does its work and returns an exit code. Errors are thrown.
#pragma once

namespace ponder::app {

class Arguments;

int pipeline_command(const Arguments&);
int pretrain_command(const Arguments&);
int rl_command(const Arguments&);
int eval_command(const Arguments&);
int chat_command(const Arguments&);
int generate_command(const Arguments&);
int score_command(const Arguments&);
int report_command(const Arguments&);
int runs_list_command(const Arguments&);
int runs_show_command(const Arguments&);
int runs_compare_command(const Arguments&);
int runs_tail_command(const Arguments&);
int runs_export_command(const Arguments&);
int runs_reindex_command(const Arguments&);
int runs_rm_command(const Arguments&);
int bench_command(const Arguments&);
int convert_command(const Arguments&);
int merge_command(const Arguments&);
int quantize_command(const Arguments&);
int compare_command(const Arguments&);
int fit_command(const Arguments&);
int model_init_command(const Arguments&);
int model_show_command(const Arguments&);
int model_verify_command(const Arguments&);
int recipe_show_command(const Arguments&);
int recipe_check_command(const Arguments&);
int doctor_command(const Arguments&);
int tokenize_command(const Arguments&);
int template_render_command(const Arguments&);
int completion_command(const Arguments&);
int man_command(const Arguments&);
int help_command(const Arguments&);

}  // namespace ponder::app
