//! What to say when libtorch throws: the binding turns that into a panic whose text is many lines of C++.

use std::{
    any::Any,
    panic::{self, AssertUnwindSafe},
    sync::Mutex,
};

/// Longest part of a panic's text that is shown.
const SHOWN_CHARS: usize = 300;
/// What libtorch's own stack begins with.
const STACK: &str = "Exception raised from";

/// Where the newest panic was.
static PLACE: Mutex<Option<String>> = Mutex::new(None);

/// Runs `work`; a panic in it becomes one line of text, and nothing else is printed. For the process's main thread, once.
///
/// # Errors
/// That line.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    panic::set_hook(Box::new(|info| {
        if let Ok(mut place) = PLACE.lock() {
            *place = info.location().map(ToString::to_string);
        }
    }));
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let place = PLACE.lock().ok().and_then(|mut place| place.take());
        describe(&text_of(payload.as_ref()), place.as_deref().unwrap_or("an unknown place"))
    })
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let plain = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    plain.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}

fn describe(text: &str, place: &str) -> String {
    let first = text.split(STACK).next().unwrap_or_default().replace("\\n", " ");
    let line = first.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: String = line.chars().take(SHOWN_CHARS).collect();
    if line.to_ascii_lowercase().contains("torch") {
        format!("out of memory or libtorch failed: {shown}; lower the budget's channels or search_batch")
    } else {
        format!("an error of the forge itself at {place}: {shown}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_of_libtorch_becomes_one_line_that_says_what_to_do() {
        let payload = panic::catch_unwind(|| {
            let _ = tch::Tensor::zeros([1 << 45], (tch::Kind::Float, tch::Device::Cpu));
        })
        .unwrap_err();
        let text = text_of(payload.as_ref());
        let line = describe(&text, "here");
        assert!(line.starts_with("out of memory or libtorch failed: "), "{line}");
        assert!(line.contains("allocate"), "{line}");
        assert!(line.ends_with("; lower the budget's channels or search_batch"), "{line}");
        assert!(!line.contains('\n') && line.len() < 2 * SHOWN_CHARS);
        assert_eq!(
            describe("index\n out of bounds", "a.rs:1:2"),
            "an error of the forge itself at a.rs:1:2: index out of bounds"
        );
    }
}
