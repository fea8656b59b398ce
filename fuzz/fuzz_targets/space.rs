//! Search spaces, TOML. A space that loads is the same when it is written and read again; a refusal is one line.

#![no_main]

use edgewright_fuzz::assert_one_line;
use libfuzzer_sys::fuzz_target;
use shared::space::SearchSpace;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match SearchSpace::from_toml(text, "space.toml") {
        Ok(space) => {
            let again = toml::to_string(&space).expect("a space can be written");
            assert_eq!(SearchSpace::from_toml(&again, "again.toml").expect("what was written loads"), space);
        }
        Err(error) => assert_one_line(&error),
    }
});
