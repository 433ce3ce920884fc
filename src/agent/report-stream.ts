// A sidecar's stream of reports, as those see it who keep what it says.

/** Who is at the other end of a stream of reports. */
export interface Reporter {
  readonly spiffeId: string;
  readonly connection: string;
  /** Asked before a report is believed; false when the stream has ended. */
  stillProven(): boolean;
}

/** The part of a gRPC stream that reports are read from. */
export interface ReportStream<Report> {
  on(event: 'data', listener: (report: Report) => void): unknown;
  on(event: 'end', listener: () => void): unknown;
  emit(event: 'error', error: unknown): unknown;
  end(): unknown;
}
