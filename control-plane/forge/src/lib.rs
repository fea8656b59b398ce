//! The forge: reads data sets, searches an architecture for a task and a board, trains it, quantises it and exports
//! ONNX. The one crate that links libtorch; it runs as the worker process `edgewright-forge`.

pub mod anomaly;
pub mod answer;
pub mod batch;
pub mod bench_step;
pub mod checkpoint;
pub mod compress;
pub mod device;
pub mod distil;
pub mod failure;
pub mod finish;
pub mod folder;
pub mod genotype;
pub mod graph;
pub mod history;
pub mod import;
pub mod job;
pub mod kernels;
pub mod layers;
pub mod memory;
pub mod network;
pub mod onnx;
pub mod optim;
pub mod params;
pub mod picture;
pub mod plot;
pub mod precision;
pub mod pretext;
pub mod quantise;
pub mod search;
pub mod seeds;
pub mod supernet;
pub mod train;

pub use dataset as data;
