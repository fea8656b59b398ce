use super::*;
use crate::{
    proto::{AttributeProto, GraphProto},
    testing::{Build, residual},
};
use proptest::prelude::{ProptestConfig, any, proptest};

fn last() -> String {
    "v13".to_owned()
}

fn bytes() -> Vec<u8> {
    residual(1).bytes(&[&last()])
}

/// What is said of a model in which one thing was changed.
fn said(change: impl FnOnce(&mut ModelProto, &mut GraphProto)) -> String {
    let mut model = residual(1).model(&[&last()]);
    let mut graph = model.graph.take().unwrap();
    change(&mut model, &mut graph);
    model.graph = Some(graph);
    let error = read(&model.encode_to_vec()).unwrap_err().to_string();
    assert!(!error.contains(char::is_control), "{error:?}");
    error
}

#[test]
fn a_plain_model_is_read_and_written_as_it_was() {
    let bytes = bytes();
    assert_eq!(read(&bytes).unwrap().encode_to_vec(), bytes);
}

#[test]
fn what_nothing_here_understands_is_kept() {
    let mut model = residual(1).model(&[&last()]);
    let graph = model.graph.as_mut().unwrap();
    graph.node[0].metadata_props.push(vec![0x0a, 1, b'k', 0x12, 1, b'v']);
    graph.node[0].device_configurations.push(vec![0x0a, 1, b'd']);
    graph.metadata_props.push(vec![0x0a, 1, b'g']);
    graph.node[0]
        .attribute
        .push(AttributeProto { tp: Some(vec![0x0a, 0]), ..AttributeProto::int("later", 3) });
    model.configuration.push(vec![0x0a, 1, b'c']);
    let bytes = model.encode_to_vec();
    assert_eq!(read(&bytes).unwrap().encode_to_vec(), bytes);
}

#[test]
fn what_is_no_model_is_refused_in_words() {
    assert_eq!(read(&[]).unwrap_err(), Error::Size { size_bytes: 0 });
    for bytes in [&b"hello"[..], &[0xff; 64], &[0x3a, 0x00]] {
        assert!(matches!(read(bytes), Err(Error::NotOnnx(_))), "{bytes:?}");
    }
}

#[test]
fn opsets_and_formats_beyond_the_known_ones_say_what_to_do() {
    let opset = |version| said(|model, _| model.opset_import[0].version = version);
    assert_eq!(opset(10), "its opset is 10, allowed are 11 to 21: export the model with opset 17");
    assert!(opset(22).starts_with("its opset is 22"));
    assert!(said(|model, _| model.opset_import.clear()).starts_with("its opset is 0"));
    assert!(said(|model, _| model.ir_version = 11).starts_with("its IR version is 11"));
}

#[test]
fn nodes_that_are_not_taken_in_are_named() {
    let node = |change: &dyn Fn(&mut NodeProto)| {
        said(|_, graph| {
            graph.node[1].name = "the\nnode".to_owned();
            change(&mut graph.node[1]);
        })
    };
    let operator = |name: &str| node(&|node| name.clone_into(&mut node.op_type));
    assert!(
        operator("Loop").starts_with("node Loop \"the\\nnode\": control flow is not taken in"),
        "{}",
        operator("Loop")
    );
    assert!(operator("If").contains("export the one branch"));
    assert!(operator("QLinearConv").contains("the model is quantised already"));
    assert!(operator("RandomNormal").contains("another answer each time"));
    assert!(operator("StringSplit").contains("strings"));
    assert!(operator("FusedConv").contains("no operator of opset 21 or older has this name"));
    let domain = node(&|node| "com.microsoft".clone_into(&mut node.domain));
    assert!(
        domain.contains("the domain \"com.microsoft\"") && domain.contains("standard operators"),
        "{domain}"
    );
    let graph = node(&|node| {
        node.attribute.push(AttributeProto { g: Some(Vec::new()), ..AttributeProto::default() });
    });
    assert!(graph.contains("it holds a graph of its own"));
    let unnamed = said(|_, graph| graph.node[1].op_type = "Scan".to_owned());
    assert!(unnamed.starts_with("node Scan \"v1\":"), "{unnamed}");
}

#[test]
fn constants_elsewhere_and_functions_are_refused() {
    let external = said(|_, graph| graph.initializer[0].external_data.push(vec![0x0a, 0]));
    assert_eq!(external, "constant \"c0\" keeps its data in another file: export the model as one file");
    assert!(said(|_, graph| graph.initializer[0].data_location = Some(1)).contains("another file"));
    assert!(said(|_, graph| graph.initializer[0].segment = Some(Vec::new())).contains("only a part"));
    assert!(said(|_, graph| graph.sparse_initializer.push(Vec::new())).contains("sparse"));
    assert!(said(|model, _| model.functions.push(Vec::new())).contains("functions"));
    let wiring = said(|_, graph| graph.node[1].input[0] = "nowhere".to_owned());
    assert!(wiring.contains("reads \"nowhere\", which nothing before it gives"), "{wiring}");
}

#[test]
fn a_model_with_a_constant_shorter_than_its_shape_is_refused() {
    let text = said(|_, graph| graph.initializer[0].dims[0] = 1 << 40);
    assert!(text.contains("impossible shape") || text.contains("does not carry"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn damaged_bytes_are_read_or_refused_in_one_line(
        cut in any::<proptest::sample::Index>(),
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), 0u8..8), 0..6),
    ) {
        let mut bytes = bytes();
        for (at, bit) in &flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        if flips.is_empty() {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Err(error) = read(&bytes) {
            assert!(!error.to_string().contains(char::is_control), "{error}");
        }
    }
}

#[test]
fn a_build_names_its_values_in_order() {
    let mut build = Build::new(1, &[4]);
    assert_eq!(build.node("Relu", &["x"], Vec::new()), "v0");
}
