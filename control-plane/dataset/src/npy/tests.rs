use super::*;

/// A file of format 1.0.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = [MAGIC, &[1, 0], &u16::try_from(header.len()).unwrap().to_le_bytes()].concat();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    bytes
}

fn header(descr: &str, shape: &str) -> String {
    format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}    \n")
}

fn parsed(descr: &str, shape: &str, data: &[u8]) -> Array {
    parse(&file(&header(descr, shape), data)).unwrap()
}

fn said(bytes: &[u8]) -> String {
    parse(bytes).unwrap_err()
}

#[test]
fn numbers_of_every_width_and_order_become_f32() {
    assert_eq!(parsed("<f4", "(2,)", &[0, 0, 128, 63, 0, 0, 0, 192]).values, [1.0, -2.0]);
    assert_eq!(parsed(">f8", "(1,)", &1.5f64.to_be_bytes()).values, [1.5]);
    assert_eq!(parsed("|i1", "(1, 3)", &[255, 127, 128]).values, [-1.0, 127.0, -128.0]);
    assert_eq!(parsed("|u1", "(2, 1)", &[255, 7]).values, [255.0, 7.0]);
    assert_eq!(parsed(">i2", "(1,)", &[255, 254]).values, [-2.0]);
    assert_eq!(parsed("<u4", "(1,)", &70_000u32.to_le_bytes()).values, [70_000.0]);
    assert_eq!(parsed("<i8", "(1,)", &(-3i64).to_le_bytes()).values, [-3.0]);
    assert_eq!(parsed("<f4", "()", &1f32.to_le_bytes()), Array { shape: Vec::new(), values: vec![1.0] });
    assert_eq!(parsed("|u1", "(2, 2)", &[1, 2, 3, 4]).shape, [2, 2]);
}

#[test]
fn what_is_no_array_of_numbers_is_refused_in_words() {
    assert_eq!(said(b"PK"), "it does not begin as a .npy file does");
    assert!(said(&[MAGIC, &[4, 0, 1, 0]].concat()).contains("format"));
    assert_eq!(said(&[MAGIC, &[1, 0, 200, 0, b'{']].concat()), "it is cut short in its header");
    let huge = [MAGIC, &[2, 0, 0xff, 0xff, 0xff, 0xff]].concat();
    assert_eq!(said(&huge), "its header has 4294967295 bytes, at most 4096 are read");
    assert!(said(&file("{}", &[])).contains("no fortran_order"));
    let fortran = header("<f4", "(1,)").replace("False", "True");
    assert!(said(&file(&fortran, &[0; 4])).contains("numpy.ascontiguousarray"));
    assert!(said(&file(&header("<f2", "(1,)"), &[0; 2])).contains("the type \"<f2\""));
    let records = "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}";
    assert!(said(&file(records, &[0; 4])).starts_with("its values are records"));
    assert!(said(&file(&header("<f4", "(2,)"), &[0; 4])).contains("4 bytes of values"));
    assert!(said(&file(&header("<f4", "(-1,)"), &[])).contains("something else than sizes"));
    assert!(said(&file(&header("<f4", &format!("({0}, {0}, {0})", 1u64 << 32)), &[])).contains("impossible"));
    assert!(said(&file(&header("<f4", "(1,1,1,1,1,1,1,1,1)"), &[0; 4])).contains("9 axes"));
    assert_eq!(
        said(&file(&header("<f4", "(1,)"), &f32::NAN.to_le_bytes())),
        "its value 0 is not a finite number"
    );
}

#[test]
fn a_folder_is_read_by_name_and_what_is_no_array_in_it_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(open(folder.path()).unwrap(), None);
    assert_eq!(open(&folder.path().join("nowhere")).unwrap(), None);
    fs::write(folder.path().join("b.npy"), file(&header("|u1", "(1,)"), &[2])).unwrap();
    fs::write(folder.path().join("a.npy"), file(&header("|u1", "(1,)"), &[1])).unwrap();
    fs::write(folder.path().join("c.txt"), "c").unwrap();
    let read = open(folder.path()).unwrap().unwrap();
    let values: Vec<f32> = read.arrays.iter().map(|(_, array)| array.values[0]).collect();
    assert_eq!(values, [1.0, 2.0]);
    fs::write(folder.path().join("c.npy"), "c").unwrap();
    let error = open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("c.npy") && error.contains("does not begin as a .npy file"), "{error}");
}
