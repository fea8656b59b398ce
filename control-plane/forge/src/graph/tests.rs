use super::*;

fn conv(out_channels: usize, in_channels: usize, groups: usize, window: Window) -> Op {
    let weight = vec![0.5; out_channels * in_channels / groups * window.taps()];
    Op::Conv(Conv { out_channels, window, groups, weight, bias: vec![0.0; out_channels], relu: true })
}

fn linear(out_features: usize, in_features: usize) -> Op {
    Op::Linear(Linear {
        out_features,
        weight: vec![0.1; out_features * in_features],
        bias: vec![0.0; out_features],
        relu: false,
    })
}

#[test]
fn infers_shapes_through_a_whole_classifier() {
    let mut graph = Graph::new(Shape::image(1, 28, 28)).unwrap();
    let stem = graph.push(conv(8, 1, 1, Window::same(2, 3, 1, 1, 1)), &[ValueId::INPUT]).unwrap();
    let down = graph.push(conv(16, 8, 8, Window::same(2, 5, 2, 2, 1)), &[stem]).unwrap();
    let pooled = graph.push(Op::MaxPool(Window::same(2, 3, 1, 1, 1)), &[down]).unwrap();
    let sum = graph.push(Op::Add { relu: false }, &[down, pooled]).unwrap();
    let joined = graph.push(Op::Concat, &[sum, down]).unwrap();
    assert_eq!(graph.shape(joined), Some(&Shape::image(32, 14, 14)));
    let mean = graph.push(Op::GlobalAvgPool, &[joined]).unwrap();
    let logits = graph.push(linear(10, 32), &[mean]).unwrap();
    assert!(graph.classes().is_err());
    graph.push(Op::Softmax, &[logits]).unwrap();
    assert_eq!(graph.classes(), Ok(10));
    assert_eq!(graph.parameters(), 8 * 9 + 8 + 16 * 25 + 16 + 320 + 10);
    assert_eq!(graph.macs(), 8 * 9 * 784 + 16 * 25 * 196 + 320);
    // While `down` (3136) is read by the concat beside `sum` (3136) and gives 6272.
    assert_eq!(graph.peak_activation_bytes(), 3136 + 3136 + 6272);
}

#[test]
fn refuses_what_does_not_fit() {
    let mut graph = Graph::new(Shape::series(2, 10)).unwrap();
    let shape_error = |result: Result<ValueId, Error>| assert!(matches!(result, Err(Error::Shape { .. })));
    shape_error(graph.push(conv(4, 3, 1, Window::same(1, 3, 1, 1, 1)), &[ValueId::INPUT]));
    shape_error(graph.push(conv(4, 2, 1, Window::same(2, 3, 1, 1, 1)), &[ValueId::INPUT]));
    shape_error(graph.push(conv(4, 2, 1, Window::same(1, 11, 1, 0, 1)), &[ValueId::INPUT]));
    shape_error(graph.push(conv(3, 2, 2, Window::same(1, 3, 1, 1, 1)), &[ValueId::INPUT]));
    shape_error(graph.push(Op::MaxPool(Window::same(1, 3, 1, 3, 1)), &[ValueId::INPUT]));
    shape_error(graph.push(Op::MaxPool(Window::same(1, 3, 0, 1, 1)), &[ValueId::INPUT]));
    shape_error(graph.push(Op::Concat, &[ValueId::INPUT]));
    shape_error(graph.push(linear(3, 19), &[ValueId::INPUT]));
    let missing = graph.push(Op::Relu, &[ValueId(1)]);
    assert_eq!(missing, Err(Error::NoSuchValue { node: 0, op: "relu", value: 1 }));
    assert!(graph.nodes().is_empty(), "a refused node leaves the graph as it was");
}

#[test]
fn a_product_takes_a_value_for_each_element_each_channel_or_each_position() {
    let mut graph = Graph::new(Shape::image(3, 4, 5)).unwrap();
    let window = || Window::same(2, 1, 1, 0, 1);
    let channels = graph.push(Op::GlobalAvgPool, &[ValueId::INPUT]).unwrap();
    let positions = graph.push(conv(1, 3, 1, window()), &[ValueId::INPUT]).unwrap();
    let other = graph.push(conv(2, 3, 1, window()), &[ValueId::INPUT]).unwrap();
    for second in [ValueId::INPUT, channels, positions] {
        let product = graph.push(Op::Mul { relu: false }, &[ValueId::INPUT, second]).unwrap();
        assert_eq!(graph.shape(product), Some(&Shape::image(3, 4, 5)));
    }
    let error = graph.push(Op::Mul { relu: false }, &[ValueId::INPUT, other]).unwrap_err();
    assert!(error.to_string().ends_with("[3, 4, 5] cannot be multiplied by [2, 4, 5]"), "{error}");
    assert!(graph.push(Op::Mul { relu: false }, &[channels, ValueId::INPUT]).is_err());
}

#[test]
fn refuses_weights_that_are_not_finite() {
    let mut graph = Graph::new(Shape::vector(2)).unwrap();
    let bad =
        Linear { out_features: 2, weight: vec![0.0, f32::NAN, 0.0, 0.0], bias: vec![0.0; 2], relu: false };
    let result = graph.push(Op::Linear(bad), &[ValueId::INPUT]);
    assert_eq!(result, Err(Error::NotFinite { node: 0, op: "linear", index: 1 }));
}

#[test]
fn refuses_a_value_that_leads_nowhere_and_nodes_behind_the_softmax() {
    let mut graph = Graph::new(Shape::vector(4)).unwrap();
    graph.push(linear(3, 4), &[ValueId::INPUT]).unwrap();
    let logits = graph.push(linear(3, 4), &[ValueId::INPUT]).unwrap();
    graph.push(Op::Softmax, &[logits]).unwrap();
    assert_eq!(graph.classes(), Err(Error::NotAClassifier("value 1 is computed and never used".into())));
    assert!(graph.push(Op::Relu, &[logits]).is_err());
}
