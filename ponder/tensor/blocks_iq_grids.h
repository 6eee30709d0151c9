// The codebooks of the IQ1, IQ2 and IQ3 types as packed text (how: blocks_iq_grids.cc).
#pragma once

namespace ponder::blocks {

extern const char *const kIq1Grid, *const kIq2XxsGrid, *const kIq2XsGrid, *const kIq2SGrid, *const kIq3XxsGrid,
                                                                                                *const kIq3SGrid;

}  // namespace ponder::blocks
