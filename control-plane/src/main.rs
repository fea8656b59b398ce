//! The `edgewright` program.

fn main() -> std::process::ExitCode {
    // Fails only when one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    edgewright::cli::main()
}
