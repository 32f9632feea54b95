/* The smallest guest there is: one page of memory and nothing that starts. */
__attribute__((export_name("loam_serve"))) void serve(void) {}
