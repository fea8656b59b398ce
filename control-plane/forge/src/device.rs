//! What of this machine computes: decided once, before libtorch is used.
//!
//! The program links libtorch's half for the processor alone. The half for NVIDIA's GPUs is a library of the same build, which
//! is loaded where it is wanted and a driver is there: one program for machines with a GPU and without.
//!
//! Parameters, what optimisers remember, and batches are on the device. Samples, whatever is drawn at random, checkpoints
//! and what is exported are the processor's, so that a job can go on on another device.

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use shared::job::ForgeDevice;
use std::{fmt, sync::OnceLock};
use tch::{Cuda, Device, Kind, TchError, Tensor};

/// The libtorch that this program is built for.
pub const LIBTORCH: &str = "2.13.0";

/// NVIDIA's driver. Without it there is no use in half a gigabyte of library.
const DRIVER: &str = "libcuda.so.1";
/// libtorch's half for GPUs.
const LIBRARY: &str = "libtorch_cuda.so";
/// Read by NVIDIA's libraries when they are loaded: 0 keeps f32 from being computed in fewer bits.
const TF32: &str = "NVIDIA_TF32_OVERRIDE";
/// Longest reason of others that is passed on.
const REASON_CHARS: usize = 200;

static CHOSEN: OnceLock<Chosen> = OnceLock::new();

/// What was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// What computes.
    pub device: Device,
    /// Why it is no GPU, where one would have been taken.
    pub lack: Option<Lack>,
}

/// Why there is no GPU to compute on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// There is no driver.
    #[error("there is no NVIDIA driver ({0})")]
    Driver(String),
    /// libtorch's half for GPUs, or something that it needs, is not there.
    #[error("libtorch has no CUDA here ({0})")]
    Library(String),
    /// Both are there, and no GPU that they can use.
    #[error("libtorch can use no GPU here ({0})")]
    Gpu(String),
}

/// Why a GPU that was asked for is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is none.
    #[error(
        "device cuda:{index}: {lack}; it takes an NVIDIA driver, and the lib folder of a CUDA build of libtorch {libtorch} in \
         LD_LIBRARY_PATH (`cargo xtask setup --gpu` brings one)",
        libtorch = LIBTORCH
    )]
    Lacking {
        /// The one that was asked for.
        index: usize,
        /// Said in the text.
        lack: Lack,
    },
    /// There are others.
    #[error("device cuda:{index}: this machine has {count} of them, counted from 0")]
    NoSuch {
        /// The one that was asked for.
        index: usize,
        /// How many there are, at least one.
        count: usize,
    },
}

/// Chooses for the whole process; the first call counts. To be called before there are other threads and before anything
/// else of libtorch: it looks for its other half once.
///
/// # Errors
/// A GPU was asked for that cannot be used.
pub fn choose(asked: ForgeDevice) -> Result<&'static Chosen, Error> {
    let chosen = decide(asked, gpus, works)?;
    Ok(CHOSEN.get_or_init(|| chosen))
}

/// What [`choose`] chose; `None` before, when the processor computes.
pub fn chosen() -> Option<&'static Chosen> {
    CHOSEN.get()
}

/// What computes.
pub fn get() -> Device {
    chosen().map_or(Device::Cpu, |chosen| chosen.device)
}

/// The tensor where it is computed with; itself where it is there already.
pub fn put(tensor: &Tensor) -> Tensor {
    tensor.to_device(get())
}

/// As it is asked for and reported: `cpu` or `cuda:N`.
pub fn name(device: Device) -> String {
    match device {
        Device::Cuda(index) => ForgeDevice::Cuda(index).to_string(),
        Device::Cpu | Device::Mps | Device::Vulkan => ForgeDevice::Cpu.to_string(),
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name(self.device))?;
        match &self.lack {
            Some(lack) => write!(f, ": {lack}"),
            None => Ok(()),
        }
    }
}

/// The decision, from how many GPUs there are and whether the one of a number works. Neither is asked for nothing.
fn decide(
    asked: ForgeDevice,
    gpus: impl FnOnce() -> Result<usize, Lack>,
    works: impl FnOnce(usize) -> Result<(), Lack>,
) -> Result<Chosen, Error> {
    let cpu = |lack| Chosen { device: Device::Cpu, lack };
    let cuda = |index| Chosen { device: Device::Cuda(index), lack: None };
    match asked {
        ForgeDevice::Cpu => Ok(cpu(None)),
        ForgeDevice::Auto => {
            Ok(gpus().and_then(|_| works(0)).map_or_else(|lack| cpu(Some(lack)), |()| cuda(0)))
        }
        ForgeDevice::Cuda(index) => {
            let lacking = |lack| Error::Lacking { index, lack };
            let count = gpus().map_err(lacking)?;
            if index >= count {
                return Err(Error::NoSuch { index, count });
            }
            works(index).map_err(lacking)?;
            Ok(cuda(index))
        }
    }
}

/// How many GPUs libtorch can use, at least one.
fn gpus() -> Result<usize, Lack> {
    load(DRIVER).map_err(Lack::Driver)?;
    if std::env::var_os(TF32).is_none() {
        // SAFETY: there is no other thread yet that could read the environment, as `choose` asks for.
        unsafe { std::env::set_var(TF32, "0") };
    }
    load(LIBRARY).map_err(Lack::Library)?;
    let count = if Cuda::is_available() { Cuda::device_count() } else { 0 };
    let count = usize::try_from(count).unwrap_or(0);
    if count > 0 { Ok(count) } else { Err(Lack::Gpu("it finds none".to_owned())) }
}

/// Loads a library by its name along the loader's path, for good.
fn load(name: &str) -> Result<(), String> {
    // SAFETY: what runs when these libraries are loaded is NVIDIA's and libtorch's own initialisation, which is made for it;
    // they are never unloaded. The name is that of libtorch's own build: one of another build lacks symbols, and RTLD_NOW
    // has the loader say so.
    let library = unsafe { Library::open(Some(name), RTLD_NOW | RTLD_GLOBAL) };
    match library {
        Ok(library) => {
            // libtorch keeps pointers into it.
            let _ = library.into_raw();
            Ok(())
        }
        Err(libloading::Error::DlOpen { source }) => Err(one_line(&source.to_string())),
        Err(error) => Err(one_line(&error.to_string())),
    }
}

/// Whether the GPU of this number computes: for one that is too old libtorch has no kernels.
fn works(index: usize) -> Result<(), Lack> {
    let product = || -> Result<f64, TchError> {
        let ones = Tensor::f_ones([2, 2], (Kind::Float, Device::Cuda(index)))?;
        ones.f_matmul(&ones)?.f_double_value(&[1, 1])
    };
    match product() {
        Ok(found) if (found - 2.0).abs() < 1e-3 => Ok(()),
        Ok(found) => Err(Lack::Gpu(format!("cuda:{index} says that 1 + 1 is {found}"))),
        Err(error) => Err(Lack::Gpu(one_line(&error.to_string()))),
    }
}

/// The beginning of a text that may have many lines.
fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(REASON_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver() -> Lack {
        Lack::Driver("libcuda.so.1: cannot open shared object file".to_owned())
    }

    fn old() -> Lack {
        Lack::Gpu("no kernel image is available".to_owned())
    }

    #[test]
    fn the_processor_is_taken_without_a_look_at_gpus_where_it_is_asked_for() {
        let chosen = decide(ForgeDevice::Cpu, || panic!("not asked for"), |_| panic!("not asked for"));
        assert_eq!(chosen, Ok(Chosen { device: Device::Cpu, lack: None }));
    }

    #[test]
    fn auto_takes_the_first_gpu_and_else_the_processor_and_says_why() {
        let auto = |gpus, works| decide(ForgeDevice::Auto, || gpus, |_| works).unwrap();
        assert_eq!(auto(Ok(2), Ok(())).to_string(), "cuda:0");
        assert_eq!(
            auto(Err(driver()), Ok(())).to_string(),
            "cpu: there is no NVIDIA driver (libcuda.so.1: cannot open shared object file)"
        );
        let missing = Lack::Library("libcudnn.so.9: cannot open shared object file".to_owned());
        assert_eq!(
            auto(Err(missing), Ok(())).to_string(),
            "cpu: libtorch has no CUDA here (libcudnn.so.9: cannot open shared object file)"
        );
        let found = auto(Ok(1), Err(old()));
        assert_eq!((found.device, found.lack), (Device::Cpu, Some(old())));
    }

    #[test]
    fn a_gpu_that_was_asked_for_and_is_not_there_is_refused_with_what_to_do() {
        let cuda = |index, gpus, works| decide(ForgeDevice::Cuda(index), || gpus, |_| works);
        assert_eq!(cuda(1, Ok(2), Ok(())).unwrap().device, Device::Cuda(1));
        let said = |refused: Result<Chosen, Error>| refused.unwrap_err().to_string();
        assert_eq!(said(cuda(2, Ok(2), Ok(()))), "device cuda:2: this machine has 2 of them, counted from 0");
        for lack in [driver(), Lack::Library("x.so: not there".to_owned())] {
            let line = said(cuda(0, Err(lack.clone()), Ok(())));
            assert!(line.starts_with(&format!("device cuda:0: {lack}; ")), "{line}");
            assert!(line.contains("libtorch 2.13.0 in LD_LIBRARY_PATH") && !line.contains('\n'), "{line}");
        }
        assert_eq!(cuda(0, Ok(1), Err(old())), Err(Error::Lacking { index: 0, lack: old() }));
    }

    #[test]
    fn a_library_that_is_not_there_is_a_line_and_no_crash() {
        let said = load("libedgewright_nowhere.so").unwrap_err();
        assert!(said.contains("libedgewright_nowhere.so") && !said.contains('\n'), "{said}");
        assert!(one_line(&"a\n b ".repeat(500)).len() <= REASON_CHARS);
    }

    #[test]
    fn before_anything_is_chosen_the_processor_computes() {
        assert_eq!((chosen(), get()), (None, Device::Cpu));
        assert_eq!(put(&Tensor::from_slice(&[1f32])).device(), Device::Cpu);
        assert_eq!([Device::Cpu, Device::Cuda(3)].map(name), ["cpu", "cuda:3"]);
    }
}
