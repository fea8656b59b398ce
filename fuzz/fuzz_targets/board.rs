//! Board descriptions, TOML. A board that loads is the same when it is written and read again; a refusal is one line.

#![no_main]

use edgewright_fuzz::assert_one_line;
use libfuzzer_sys::fuzz_target;
use shared::board::Board;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Board::from_toml(text, "board.toml") {
        Ok(board) => {
            assert!(board.runtime.threads >= 1 && board.runtime.threads <= board.cpu.cores);
            let again = toml::to_string(&board).expect("a board can be written");
            assert_eq!(Board::from_toml(&again, "again.toml").expect("what was written loads"), board);
        }
        Err(error) => assert_one_line(&error),
    }
});
