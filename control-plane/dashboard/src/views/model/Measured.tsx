// What the exported model is and does, and what each step of its compression changed.
import type { JobReport } from "../../api/types";
import { Card } from "../../parts/Card";
import { bytes, count, micros, percent, words } from "../../pure/format";

export function Measured({ report }: { report: JobReport }) {
  const { model, compression } = report;
  const form = (model.form ?? "int8").toUpperCase();
  return (
    <Card title="Measured">
      <dl className="facts">
        {model.accuracy_int8 != null && (
          <>
            <dt>Accuracy</dt>
            <dd>
              {percent(model.accuracy_int8, 2)} {form}
              {model.accuracy_fp32 != null && <span className="soft">, {percent(model.accuracy_fp32, 2)} FP32</span>}
            </dd>
          </>
        )}
        {(model.metrics ?? []).map((metric) => (
          <div key={metric.metric} className="pair">
            <dt>{words(metric.metric)}</dt>
            <dd>
              {metric.int8.toFixed(4)} {form}
              <span className="soft">, {metric.fp32.toFixed(4)} FP32</span>
            </dd>
          </div>
        ))}
        <dt>Size</dt>
        <dd>
          {bytes(model.bytes_int8_onnx)} <span className="soft">of {bytes(model.bytes_fp32_onnx)} as FP32</span>
        </dd>
        <dt>Weights</dt>
        <dd>{count(model.parameters)}</dd>
        <dt>Multiply-accumulates</dt>
        <dd>{count(model.macs)}</dd>
        {report.estimate != null && (
          <>
            <dt>On the board</dt>
            <dd>{micros(report.estimate.us)} an inference, estimated</dd>
          </>
        )}
      </dl>
      {model.remarks.map((remark) => (
        <p key={remark} className="note small">
          {remark}
        </p>
      ))}
      {compression != null && compression.steps.length > 0 && (
        <div className="scroll">
          <table>
            <caption className="soft small">Step by step</caption>
            <thead>
              <tr>
                <th scope="col">Step</th>
                <th scope="col" className="number">
                  Bytes
                </th>
                <th scope="col" className="number">
                  Weights
                </th>
                <th scope="col" className="number">
                  Accuracy
                </th>
                <th scope="col" className="number">
                  ONNX Runtime
                </th>
                <th scope="col" className="number">
                  tract
                </th>
              </tr>
            </thead>
            <tbody>
              {compression.steps.map((step, at) => (
                <tr key={`${at} ${step.step}`}>
                  <th scope="row">{step.step}</th>
                  <td className="number nowrap">{bytes(step.bytes)}</td>
                  <td className="number nowrap">{count(step.parameters)}</td>
                  <td className="number nowrap">{percent(step.accuracy, 2)}</td>
                  <td className="number nowrap">{micros(step.us_ort)}</td>
                  <td className="number nowrap">{step.us_tract == null ? "–" : micros(step.us_tract)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </Card>
  );
}
