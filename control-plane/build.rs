//! The migrations are compiled in; a change of them alone has to rebuild the store.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
