/* The empty guest in C, with the C library's start. */
__attribute__((export_name("loam_serve"))) void serve(void) {}
