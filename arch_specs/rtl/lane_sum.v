// The sum of the 1, 2 or 4 signed numbers in a word of four fields.
//
//   precision   0: one number of four fields, 1: two of two fields, 2: four of one field
//   sign[j]     the sign of the number whose highest field is j; it stands above the number's bits
module lane_sum #(
    parameter FIELD = 2
) (
    input         [4*FIELD-1:0] word,
    input         [        3:0] sign,
    input         [        1:0] precision,
    output signed [  4*FIELD:0] sum
);
    wire half = |precision;
    wire quarter = precision[1];

    // Numbers of one field, extended by their signs; the additions of a precision that is not in use see zeros.
    wire [2*FIELD:0] field0 = {{(FIELD+1){sign[0]}}, word[FIELD-1:0]};
    wire [2*FIELD:0] field1 = {{(FIELD+1){sign[1]}}, word[2*FIELD-1:FIELD]} & {(2*FIELD+1){quarter}};
    wire [2*FIELD:0] field2 = {{(FIELD+1){sign[2]}}, word[3*FIELD-1:2*FIELD]};
    wire [2*FIELD:0] field3 = {{(FIELD+1){sign[3]}}, word[4*FIELD-1:3*FIELD]} & {(2*FIELD+1){quarter}};
    wire [2*FIELD:0] low = quarter ? field0 + field1 : {sign[1], word[2*FIELD-1:0]};
    wire [2*FIELD:0] high = quarter ? field2 + field3 : {sign[3], word[4*FIELD-1:2*FIELD]};

    wire [4*FIELD:0] added = {{(2*FIELD){low[2*FIELD]}}, low}
                             + ({{(2*FIELD){high[2*FIELD]}}, high} & {(4*FIELD+1){half}});
    assign sum = half ? added : {sign[3], word};
endmodule
