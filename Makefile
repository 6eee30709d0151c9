# Thin names for the scripts in tools/; the build itself is CMake's.
.PHONY: quickstart test format
quickstart test format:
	@bash tools/$@
