#include "ponder/app/options.h"

int main(int argc, char** argv) { return ponder::app::run_program(argc, argv); }
