//! The `edgewright` program.

/// A third of the time of a server with 10,000 devices went into the allocator of the C library (ADR 47).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    // Fails only when one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    edgewright::cli::main()
}
